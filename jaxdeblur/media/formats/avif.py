"""AVIF files where Pillow does too little: subsampling, depth, colours, EXIF blocks as they are."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from jaxdeblur.media.formats import heif
from jaxdeblur.media.metadata.common import valid_orientation

_DESCRIPTION, _ORIENTATION = 270, 274


def settings(data: bytes) -> tuple[dict[str, Any], int]:
    """Subsampling and depth, from the third byte of the box with the decoder's configuration."""
    place = data.find(b"av1C") + 6
    flags = data[place] if 6 <= place < len(data) else 0
    subsampling = {0x0C: "4:2:0", 0x08: "4:2:2"}.get(flags & 0x0C, "4:4:4")
    if flags & 0x10:
        subsampling = "4:0:0"
    return {"subsampling": subsampling}, 10 if flags & 0x40 else 8


def encode(image: Image.Image, options: dict[str, Any], colours: tuple[int, int] | None) -> bytes:
    """Encodes a picture.

    Args:
      image: the picture.
      options: of Pillow's encoder.
      colours: primaries and transfer characteristics to tell; None tells the encoder's.
    """
    block = options.get("exif", b"")
    stand_in = Image.Exif()
    if block:
        # Pillow would write a block with an orientation anew, with maker notes at other places.
        stand_in, block = _stand_in(block)
        options = options | {"exif": stand_in}
    buffer = io.BytesIO()
    image.save(buffer, "AVIF", **options)
    encoded = buffer.getvalue()
    if block:
        stand_in.pop(_ORIENTATION, None)  # as Pillow does
        written = stand_in.tobytes()
        if encoded.count(written) != 1:
            raise ValueError("its EXIF block cannot be placed")
        encoded = encoded.replace(written, block)
    return heif.with_nclx(encoded, *colours) if colours else encoded


def _stand_in(block: bytes) -> tuple[Image.Exif, bytes]:
    """A block of the orientation and length of another one, and that one, filled up to it."""
    exif_of_block = Image.Exif()
    exif_of_block.load(block)
    stand_in = Image.Exif()
    stand_in[_DESCRIPTION] = "-" * 8
    least = len(stand_in.tobytes())
    stand_in[_DESCRIPTION] = "-" * (8 + max(0, len(block) - least))
    stand_in_bytes = stand_in.tobytes()
    stand_in[_ORIENTATION] = valid_orientation(exif_of_block.get(_ORIENTATION))
    return stand_in, block.ljust(len(stand_in_bytes), b"\0")
