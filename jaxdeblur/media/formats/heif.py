"""What the boxes of AVIF and HEIC files say that their decoders do not hand out (ISO/IEC 23008-12).

Boxes are searched only as far as a question needs it; in a damaged file nothing is found.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import Any

from jaxdeblur.media.metadata.common import Metadata

_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # the type of its box

# Marks in the lists of the pictures, of what they are to each other and of their properties.
_MARKS = {
    b"hdrgainmap": "gain_map",
    b"tmap": "gain_map",
    b"auxid:2\0": "depth_map",
    b"systems:auxiliary:depth\0": "depth_map",
    b"matte\0": "depth_map",
    b"thmb": "previews",
}


# What describes the picture's light stays true of other pixels.
_OF_LIGHT = ("content_light_level", "mastering_display_colour_volume")
_OF_LIGHT += ("ambient_viewing_environment", "nominal_diffuse_white_luminance")


def brands(data: bytes) -> set[bytes]:
    """What a file calls itself; nothing if it is none of this family."""
    if data[4:8] != b"ftyp":
        return set()
    size = min(int.from_bytes(data[:4]), 1024)
    return {data[8:12]} | {data[at : at + 4] for at in range(16, size, 4)}


def lost(data: bytes) -> set[str]:
    """Names in `LOST` of what lies beside the picture."""
    found = set()
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            for part, a, b in _boxes(data, start + 4, end):
                if part in (b"iinf", b"iref", b"iprp"):
                    found |= {name for mark, name in _MARKS.items() if mark in data[a:b]}
        elif (kind == b"uuid" and data[start : start + 16] == _C2PA) or kind == b"jumb":
            found.add("c2pa")
        elif kind == b"mpvd":  # Google's
            found.add("motion_photo")
    return found


def nclx(data: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer characteristics of the picture by ITU-T H.273."""
    place = _nclx_of_picture(data)
    return struct.unpack_from(">HH", data, place) if place else None


def with_nclx(encoded: bytes, primaries: int, transfer: int) -> bytes:
    """A file that has an nclx box with other primaries and transfer characteristics in it."""
    place = _nclx_of_picture(encoded)
    if place is None:
        raise ValueError("the file does not tell its colours")
    return encoded[:place] + struct.pack(">HH", primaries, transfer) + encoded[place + 4 :]


@functools.cache
def register() -> None:
    """Lets Pillow read and write HEIC files."""
    import pillow_heif

    pillow_heif.register_heif_opener()


def settings(info: dict[Any, Any]) -> tuple[dict[str, Any], int]:
    """What keeps the output close to the input, and the input's depth."""
    kept = ("chroma", "nclx_profile", "pixel_aspect_ratio", *_OF_LIGHT)
    return {key: info[key] for key in kept if info.get(key)}, info.get("bit_depth", 8)


def with_colours(options: dict[str, Any], metadata: Metadata) -> dict[str, Any]:
    """Options of HEIC's encoder that tell the colours."""
    if not metadata.colours or metadata.icc or "nclx_profile" in options:
        return options
    primaries, transfer = metadata.colours
    codes = {"color_primaries": primaries, "transfer_characteristics": transfer}
    return options | {"nclx_profile": codes | {"matrix_coefficients": 6, "full_range_flag": 1}}


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, start and end of the contents of the boxes in a part of the file."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if size == 0 else start + size
        if not content <= stop <= end:
            return
        yield kind, content, stop
        start = stop


def _nclx_of_picture(data: bytes) -> int | None:
    """Where the codes of the main picture's colours are."""
    try:
        meta = next((a, b) for kind, a, b in _boxes(data, 0, len(data)) if kind == b"meta")
        parts = {kind: (a, b) for kind, a, b in _boxes(data, meta[0] + 4, meta[1])}
        properties = {kind: (a, b) for kind, a, b in _boxes(data, *parts[b"iprp"])}
        own = list(_boxes(data, *properties[b"ipco"]))
        picture = _picture(data, parts[b"pitm"][0])
        for number in _properties_of(data, picture, properties[b"ipma"][0]):
            kind, start, _ = own[number - 1]
            if kind == b"colr" and data[start : start + 4] == b"nclx":
                return start + 4
    except (StopIteration, KeyError, IndexError, struct.error):
        pass
    return None


def _picture(data: bytes, pitm: int) -> int:
    return struct.unpack_from(">I" if data[pitm] else ">H", data, pitm + 4)[0]


def _properties_of(data: bytes, item: int, ipma: int) -> list[int]:
    """Numbers, from 1, of an item's properties."""
    long_item, long_index = data[ipma] > 0, data[ipma + 3] & 1
    (count,) = struct.unpack_from(">I", data, ipma + 4)
    at = ipma + 8
    for _ in range(count):
        (this,) = struct.unpack_from(">I" if long_item else ">H", data, at)
        at += 4 if long_item else 2
        number = data[at]
        indices = struct.unpack_from(f">{number}{'H' if long_index else 'B'}", data, at + 1)
        at += 1 + number * (2 if long_index else 1)
        if this == item:
            return [index & (0x7FFF if long_index else 0x7F) for index in indices]
    return []
