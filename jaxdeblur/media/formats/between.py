"""What the result loses of a photograph because its format has no place for it."""

from __future__ import annotations

import numpy as np

from jaxdeblur.media import lost
from jaxdeblur.media.formats import jpeg, png
from jaxdeblur.media.metadata import exif, profiles
from jaxdeblur.media.metadata.common import Metadata

_WITH_CODE_POINTS = ("PNG", "AVIF", "HEIF")  # formats that tell colours by ITU-T H.273
_WITH_RESOLUTION = ("JPEG", "PNG", "TIFF", "BMP")
_OF_TIFF = {33723, 34377}  # tags of IPTC and of Photoshop's resources
_LOSSY = ("WEBP", "AVIF", "HEIF")


def tell(
    metadata: Metadata, source: str, target: str, dtype: np.dtype, *, grey: bool, alpha: bool
) -> None:
    """Tells what is lost.

    Args:
      metadata: of the photograph.
      source: its format as Pillow names it.
      target: the result's format.
      dtype: of the photograph's pixels.
      grey: whether it is grey.
      alpha: whether it has an alpha channel.
    """
    names = _of_pixels(target, dtype, grey=grey, alpha=alpha) | _of_colours(metadata, target)
    if source == target:
        if target in _LOSSY and "lossless" not in metadata.same_format:
            names.add("quality")
    else:
        names |= _of_metadata(metadata, source, target)
    lost.tell_all(names)


def _of_pixels(target: str, dtype: np.dtype, *, grey: bool, alpha: bool) -> set[str]:
    names = set()
    if target not in ("PNG", "TIFF") and dtype != np.uint8:
        names.add("deep")
    if target == "PNG" and dtype.kind == "f":
        names.add("floats")
    if grey and (target == "WEBP" or (target == "AVIF" and alpha)):
        names.add("grey")
    return names


def _of_colours(metadata: Metadata, target: str) -> set[str]:
    wrong = False
    if metadata.icc:
        wrong = target == "BMP" and not profiles.describes_srgb(metadata.icc)
    elif metadata.colours and not profiles.is_srgb(metadata.colours):
        told_by_profile = target != "BMP" and profiles.of_code_points(metadata.colours, grey=False)
        wrong = target not in _WITH_CODE_POINTS and not told_by_profile
    return {"colours"} if wrong else set()


def _of_metadata(metadata: Metadata, source: str, target: str) -> set[str]:
    names = set()
    own = metadata.same_format
    if source == "GIF" and target == "PNG":
        names.add("gif")
    if source == "JPEG" and jpeg.holds_more(own["segments"]):
        names.add("segments")
    if source == "TIFF" and _OF_TIFF & own["tags"].keys():
        names.add("segments")
    if source == "PNG" and png.has_texts(own["chunks"]):
        names.add("texts")
    if target == "BMP" and (metadata.exif or metadata.xmp):
        names.add("bmp")
    if metadata.dpi and target not in _WITH_RESOLUTION and not exif.tells_resolution(metadata.exif):
        names.add("resolution")
    if target == "JPEG" and (
        len(metadata.exif) > exif.MOST_IN_JPEG or len(metadata.xmp) > jpeg.MOST_XMP
    ):
        names.add("too_long")
    return names
