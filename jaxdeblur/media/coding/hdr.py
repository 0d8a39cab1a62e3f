"""What an HDR video says of its brightness, as options of x264, which writes it into the stream."""

from __future__ import annotations

import struct
from collections.abc import Mapping

# AVMasteringDisplayMetadata: red, green, blue and white, each x and y, then the darkest and the
# brightest light, all as fractions; and whether the colours and the light are known.
_DISPLAY = struct.Struct("<20i2i")
_CHROMATICITY, _LUMINANCE = 50_000, 10_000  # the units of SMPTE ST 2086, as parts of 1 and of cd/m2
_LIGHT = struct.Struct("<2I")  # AVContentLightMetadata: of the brightest pixel, and frame


def x264_params(side_data: Mapping[str, bytes]) -> str:
    """The mastering display and the light levels of a frame; "" if it has none of both."""
    params = []
    if display := side_data.get("MASTERING_DISPLAY_METADATA"):
        *numbers, colours_known, light_known = _DISPLAY.unpack(display[: _DISPLAY.size])
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if colours_known and light_known and all(bottom for _, bottom in pairs):
            values = [top / bottom for top, bottom in pairs]
            red, green, blue, white = (
                f"({round(x * _CHROMATICITY)},{round(y * _CHROMATICITY)})"
                for x, y in zip(values[:8:2], values[1:8:2], strict=True)
            )
            darkest, brightest = (round(light * _LUMINANCE) for light in values[8:])
            params.append(
                f"mastering-display=G{green}B{blue}R{red}WP{white}L({brightest},{darkest})"
            )
    if light := side_data.get("CONTENT_LIGHT_LEVEL"):
        params.append("cll={},{}".format(*_LIGHT.unpack(light[: _LIGHT.size])))
    return ":".join(params)
