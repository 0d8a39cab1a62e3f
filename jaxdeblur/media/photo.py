"""Photographs as pixels, and files with other pixels and the same metadata.

What a result does not have of its source, `lost.LOST` lists; it is told when it happens. What turns
a HEIC file is done to its pixels, so its size is the displayed one and its orientation 1. Colours
that code points, gamma or primaries tell go as an ICC profile where a format knows no other way.

Between formats go EXIF, ICC profile, XMP and resolution, as far as the output's format holds them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxdeblur.errors import InputError, one_line, printable
from jaxdeblur.media import streams
from jaxdeblur.media.formats import between, pillow, png, tiff, tiff_pages
from jaxdeblur.media.metadata import profiles
from jaxdeblur.media.metadata.common import Metadata
from jaxdeblur.runtime.atomic import replacing

SUFFIXES: tuple[str, ...] = tuple(pillow.FORMATS)
"""Ends of the names of files that can be read and written, in lower case."""

_DEEPEST = {"PNG": np.dtype(np.uint16), "TIFF": np.dtype(np.float32)}  # others: uint8


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photograph and what its file holds beside the pixels.

    Attributes:
      rgb: `[H, W, 3]`, uint8 in [0, 255], uint16 in [0, 65535] or float32 in [0, 1], as stored in
        the file, that is, not turned. May be a read-only view.
      alpha: opacity `[H, W]` of the same type, or None.
      grey: whether the file is grey. `rgb` is then the same thing three times.
      format: the file's format as Pillow names it.
      metadata: what `encode` needs.
      orientation: the EXIF orientation, 1 to 8.
      name: of the file, for messages.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    grey: bool
    format: str
    metadata: Metadata
    orientation: int
    name: str = "photo"

    @property
    def opaque(self) -> bool:
        """Whether nothing is transparent: then a format without alpha holds the photograph."""
        if self.alpha is None:
            return True
        kind = self.alpha.dtype
        return bool((self.alpha == (np.iinfo(kind).max if kind.kind == "u" else 1)).all())

    def upright(self, rgb: np.ndarray) -> np.ndarray:
        """Turns `[H, W, C]` pixels as a viewer does; returns a view `[H, W, C]` or `[W, H, C]`."""
        if self.orientation in (5, 6, 7, 8):
            rgb = rgb.swapaxes(0, 1)
        if self.orientation in (3, 4, 7, 8):
            rgb = rgb[::-1]
        if self.orientation in (2, 3, 6, 7):
            rgb = rgb[:, ::-1]
        return rgb


def read(source: str | os.PathLike[str] | bytes, *, name: str | None = None) -> Photo:
    """Reads a photograph.

    Args:
      source: path of the file, or its bytes.
      name: what to call it in messages; by default the path.

    Raises:
      InputError: the file cannot be read, is damaged, or is of a kind that cannot be written again
        as it was: animations, LAB, floats outside [0, 1]. The message is one line with the name.
    """
    if name is None:
        name = "standard input" if isinstance(source, bytes) else os.fspath(source)
    data = source if isinstance(source, bytes) else _file_bytes(source, name)
    try:
        if not data:
            raise InputError("is empty")
        with _quiet():
            return _decode(data, name)
    except InputError as error:
        raise _error(name, error) from None
    except MemoryError:
        raise
    # A damaged file makes decoders raise anything: struct.error, zlib.error, TypeError, IndexError,
    # AttributeError, RuntimeError, SyntaxError and more.
    except Exception as error:
        raise _error(name, f"is damaged and cannot be decoded ({_reason(error)})") from error


def encode(photo: Photo, rgb: np.ndarray, suffix: str | None = None) -> bytes:
    """Returns the photograph's file with other pixels.

    Args:
      photo: the photograph.
      rgb: pixels of the shape and type of `photo.rgb`. Of a grey photograph the mean of the three
        channels is written, rounded.
      suffix: the end of a file name, such as ".png", whose format to write; None is the input's.
        Formats of 8 bits get 8 bits. A format without EXIF (BMP) gets the pixels turned upright.

    Raises:
      InputError: the suffix is unknown, or its format cannot hold the photograph.
    """
    if rgb.shape != photo.rgb.shape or rgb.dtype != photo.rgb.dtype:
        raise ValueError(
            f"rgb is {rgb.dtype} {rgb.shape}, not {photo.rgb.dtype} {photo.rgb.shape} as photo.rgb"
        )
    target = output_format(photo, suffix)
    array = _channels(photo, rgb, alpha=target not in pillow.WITHOUT_ALPHA)
    array = _of_depth(array, _DEEPEST.get(target, np.dtype(np.uint8)))
    if target == "BMP":
        array = photo.upright(array)
    same_format = target == photo.format
    pixels = {"grey": photo.grey, "alpha": photo.alpha is not None}
    between.tell(photo.metadata, photo.format, target, rgb.dtype, **pixels)
    try:
        with _quiet():
            if target == "PNG":
                return png.encode(np.ascontiguousarray(array), photo.metadata, same_format)
            if target == "TIFF":
                icc = profiles.of(photo.metadata, grey=photo.grey)
                metadata = dataclasses.replace(photo.metadata, icc=icc)
                return tiff.encode(array, metadata, same_format)
            return pillow.encode(array, target, photo.metadata, same_format)
    except MemoryError:
        raise
    # What a decoder let through of damaged metadata makes encoders raise anything, too.
    except Exception as error:
        raise _error(photo.name, f"cannot be written as {target} ({_reason(error)})") from error


def write(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    overwrite: bool = False,
    like: str | os.PathLike[str] | None = None,
) -> None:
    """Writes a file, whole or not at all.

    Args:
      path: of the file; its folder must exist.
      data: its bytes.
      overwrite: whether to replace a file that exists.
      like: a file whose permissions it is to have.

    Raises:
      InputError: the file exists or cannot be written. What was there stays as it was.
    """
    with replacing(path, overwrite=overwrite, like=like) as partial:
        partial.write_bytes(data)


def _error(name: str, reason: object) -> InputError:
    return InputError(f"{printable(name)}: {one_line(reason)}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _file_bytes(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise _error(name, "is a folder; give a file")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise _error(name, "is not a file")
        if stat.S_ISFIFO(mode):
            return streams.read_pipe(path, printable(name))
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise _error(name, "does not exist") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise _error(name, f"cannot be read ({_reason(error)})") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Python's warnings and the libraries' logs: what matters is raised."""
    names = ("PIL", "imagecodecs", "pillow_heif", "tifffile")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _decode(data: bytes, name: str) -> Photo:
    if data.startswith(png.SIGNATURE):
        array, metadata = png.decode(data)
        kind = "PNG"
    elif data.startswith(tiff.MAGIC):
        array, metadata = tiff.decode(data)
        kind = "TIFF"
    elif data.startswith(tiff_pages.RAW_MAGIC) or data[4:12] == b"ftypcrx ":
        raise InputError(tiff_pages.RAW)
    else:
        array, metadata, kind = pillow.decode(data)
    height, width, channels = array.shape
    grey = channels < 3
    return Photo(
        rgb=np.broadcast_to(array[..., :1], (height, width, 3)) if grey else array[..., :3],
        alpha=array[..., -1] if channels in (2, 4) else None,
        grey=grey,
        format=kind,
        metadata=metadata,
        orientation=metadata.orientation,
        name=name,
    )


def output_format(photo: Photo, suffix: str | None) -> str:
    """The format, as Pillow names it, that `encode` would write; raises what it would raise."""
    if not suffix:  # of a name without one, too
        return pillow.READ_ALONE.get(photo.format, photo.format)
    target = pillow.FORMATS.get(suffix.lower())
    if target is None:
        raise _error(suffix, f"files cannot be written; choose from {', '.join(SUFFIXES)}")
    if target in pillow.WITHOUT_ALPHA and not photo.opaque:
        raise _error(photo.name, f"has transparency, which {suffix} cannot hold; choose .png")
    premultiplied = photo.metadata.same_format.get("extra") == 1 and not photo.opaque
    if target != photo.format and premultiplied:
        raise _error(photo.name, "has premultiplied alpha, which only TIFF holds; choose .tif")
    return target


def _channels(photo: Photo, rgb: np.ndarray, *, alpha: bool) -> np.ndarray:
    """`[H, W, C]` pixels as the file has them; `alpha` tells whether its opacity is written."""
    if photo.grey and rgb.dtype.kind == "u":  # rounded: a third is never a half
        rgb = ((rgb.sum(axis=-1, keepdims=True, dtype=np.uint32) + 1) // 3).astype(rgb.dtype)
    elif photo.grey:
        rgb = rgb.mean(axis=-1, keepdims=True, dtype=np.float64).astype(rgb.dtype)
    if photo.alpha is None or not alpha:
        return rgb
    return np.concatenate([rgb, photo.alpha[..., None]], axis=-1)


def _of_depth(array: np.ndarray, deepest: np.dtype) -> np.ndarray:
    """Rounds to the deepest type that a format has; floats are kept in [0, 1]."""
    if array.dtype.kind == "f":
        array = np.clip(array, 0, 1)
        if deepest.kind == "u":
            array = np.rint(array * np.float64(np.iinfo(deepest).max)).astype(deepest)
    elif array.dtype.itemsize > deepest.itemsize:
        array = ((array.astype(np.uint32) + 128) // 257).astype(deepest)
    return array
