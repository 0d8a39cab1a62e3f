"""Image files as uint8 RGB arrays `[H, W, 3]`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from jaxdeblur.runtime.folders import files_below

_log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")

# What Pillow raises for a file that is no image, or a damaged one.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

_LYING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image; hidden files are none."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder, by suffix, in sorted order; hidden ones are left out.

    What cannot be read is told as a warning.
    """

    def unreadable(error: OSError) -> None:
        _log.warning("%s: left out, cannot be read (%s)", error.filename, error.strerror)

    return [path for path in files_below(folder, unreadable) if is_image(path.name)]


def read_header(path: str | os.PathLike[str]) -> tuple[int, int, str]:
    """Returns height and width of an image as it is looked at, and its type.

    The type is Pillow's mode, with ";16" where a channel has 16 bits.

    Raises:
      One of UNREADABLE: not a readable image, or one of more pixels than Pillow takes.
    """
    with Image.open(path) as image:
        width, height = image.size
        # To look for EXIF data behind a PNG's pixels, Pillow would decode them.
        known = {"exif", "Raw profile type exif"} & image.info.keys()
        exif = image.getexif() if known or image.format != "PNG" else {}
        if exif.get(ExifTags.Base.Orientation) in _LYING:
            width, height = height, width
        deep = ";16" in str(image.tile) and ";16" not in image.mode
        return height, width, image.mode + ";16" * deep


def read_rgb(path: str | os.PathLike[str]) -> np.ndarray:
    """Decodes an image upright, to uint8 `[H, W, 3]`; grey and 16-bit ones are converted.

    Raises:
      One of UNREADABLE: not a readable image, or damaged.
    """
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16-bit grey, which `convert` would clip
            grey = np.rint(np.asarray(upright, np.float32) / 257).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        return np.asarray(upright.convert("RGB"))
