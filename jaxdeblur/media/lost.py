"""What a result does not hold of its source: one list, told at run time and shown in the docs."""

from __future__ import annotations

import logging
from collections.abc import Iterable

_log = logging.getLogger(__name__)

# docs/kept.md has every one of these sentences; `tests/media/test_lost.py` holds that.
LOST: dict[str, str] = {
    "palette": "has a palette; its result is RGB",
    "bilevel": "has 1 bit a pixel; its result is grey of 8 bits",
    "inks": "is CMYK; its result is sRGB",
    "lab": "is in the LAB colour space; its result is sRGB",
    "ycbcr": "is YCbCr; its result is RGB",
    "depth": "has a depth other than 8 or 16 bits, or floats of 32; its result has one of these",
    "copies": "has reduced copies or masks beside its picture; its result has only the picture",
    "layers": "has Photoshop's layers; its result has only the flat picture",
    "compression": "has a compression other than LZW and deflate; its result is deflated",
    "bigtiff": "is a BigTIFF file; its result is a classic one",
    "layout": "is stored in tiles or planes; its result is in strips",
    "description": "has a description that tells how its pixels are stored; its result has none",
    "deep": "has more than 8 bits a sample; its result has 8",
    "transparent_video": "is transparent; its result is opaque",
    "interlaced": "is interlaced; its result is progressive",
    "dolby_vision": "has Dolby Vision metadata; its result has none",
    "dynamic_hdr": "has HDR metadata of each scene (HDR10+, HDR Vivid); its result has none",
    "video_icc": "has a colour profile in its video; its result has none",
    "spherical": "has a spherical mapping; its result has none",
    "views": "has two views, of which its result may hold one and tells nothing",
    "other_videos": "has more than one video stream; its result has the first",
    "cover": "has a cover picture; its result has none",
    "attachments": "has attached files; its result has none",
    "data": "has streams of data, such as time codes or places; its result has none",
    "gif": "is GIF, which is not written; its result is PNG",
    "gain_map": "has a gain map or the like for HDR displays; its result is the SDR picture alone",
    "motion_photo": "is a motion photo; its result is the picture without the video",
    "depth_map": "has a depth map or masks beside its picture; its result has none",
    "pictures": "holds more than one picture; its result is the first alone",
    "previews": "has previews of its old pixels; its result is without them",
    "c2pa": "has content credentials (C2PA), which hold for its own pixels; its result has none",
    "damaged_xmp": "has a damaged XMP packet that tells of more than its picture; it is left out",
    "progressive": "is a progressive JPEG file; its result is not",
    "lossless_jpeg": "is a lossless JPEG file; its result is a lossy one",
    "colour_key": "has a transparent colour; its result has an alpha channel",
    "grey_bits": "is grey of 2 or 4 bits; its result has 8",
    "interlaced_png": "is an interlaced PNG file; its result is not",
    "chunks": "has PNG chunks of its own pixels or private ones; its result has none",
    "quality": "is lossy and tells no quality; its result has 95 (WebP) or 90 (AVIF, HEIC)",
    "grey": "is grey, which its result's format cannot hold as such; its result is RGB",
    "floats": "has floats; its result has integers",
    "colours": "has colours that its result's format cannot tell, as of HDR; they will look wrong",
    "bmp": "has EXIF or XMP metadata; its result is BMP, which holds none",
    "texts": "has texts of PNG; its result's format has no place for them",
    "segments": "has a comment, IPTC, long XMP or the like, which go into no other format",
    "resolution": "tells its dots per inch; its result's format has no place for that",
    "too_long": "has more EXIF or XMP metadata than JPEG holds; its result has none of that kind",
}
"""Sentences about a source, each of which begins after the file's name, by what is lost."""


def tell(name: str) -> None:
    """Logs the sentence of `LOST` under `name`; the command line tells it once, with the file."""
    _log.info(LOST[name])


def tell_all(names: Iterable[str]) -> None:
    """Tells several, in the order of `LOST`."""
    for name in sorted(names, key=list(LOST).index):
        tell(name)
