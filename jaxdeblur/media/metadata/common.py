"""What a photo file holds beside its pixels, and limits that all formats share."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

from PIL import Image

from jaxdeblur.errors import InputError


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What an encoder needs beside the pixels.

    Attributes:
      exif: the EXIF block, which is a TIFF structure, without the "Exif" marker before it.
      icc: the ICC profile.
      xmp: the XMP packet.
      dpi: resolution across and down, in pixels an inch.
      orientation: the EXIF orientation, 1 to 8.
      colours: primaries and transfer characteristics by ITU-T H.273, where the file tells them; a
        profile goes before.
      same_format: what only the encoder of the file's own format uses, by name.
    """

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    orientation: int = 1
    colours: tuple[int, int] | None = None
    same_format: dict[str, Any] = dataclasses.field(default_factory=dict)


def check_size(width: int, height: int) -> None:
    """Refuses what Pillow refuses: no pixels, or so many that the file may be a bomb.

    Raises:
      InputError: without the file's name.
    """
    if width < 1 or height < 1:
        raise InputError(f"has {width} x {height} pixels; an image needs at least one")
    most = 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else None
    if most is not None and width * height > most:
        raise InputError(
            f"has {width} x {height} pixels, at most {most:,} can be read; crop or shrink it"
        )


def check_frames(frames: int) -> None:
    """Refuses animations and files of several pages.

    Raises:
      InputError: without the file's name.
    """
    if frames > 1:
        raise InputError(f"has {frames} frames; give a file with a single picture")


def valid_orientation(value: object) -> int:
    """The EXIF orientation, or 1 (upright) for anything that is none."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def valid_dpi(value: Any) -> tuple[float, float] | None:
    """A resolution as two floats, or None for one that no device has and formats cannot hold."""
    if not value or not 0 < min(value) <= max(value) < 2**20:
        return None
    return float(value[0]), float(value[1])


def exif_of(image: Image.Image) -> tuple[bytes, int]:
    """The EXIF block and the orientation in it or in the XMP packet.

    A block that cannot be read is as none: the picture is worth more than it.
    """
    block = (image.info.get("exif") or b"").removeprefix(b"Exif\0\0")
    try:
        Image.Exif().load(block)  # `image` may have met the error already, and kept it back
        return block, valid_orientation(image.getexif().get(274))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return b"", 1
