"""The pixels of a TIFF file's directory, in the nearest kind that holds them restored."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jaxdeblur.errors import InputError
from jaxdeblur.media import lost
from jaxdeblur.media.metadata import srgb
from jaxdeblur.media.metadata.common import check_size

if TYPE_CHECKING:
    from tifffile import TiffPage

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = 0, 1, 2, 3  # photometric
_CMYK, _YCBCR, _CIELAB, _ICCLAB = 5, 6, 8, 9
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_COLOURS |= {_CIELAB: 3, _ICCLAB: 3}
_TOLD = {_PALETTE: "palette", _CMYK: "inks", _YCBCR: "ycbcr", _CIELAB: "lab", _ICCLAB: "lab"}

_INKS, _CMYK_INKS, _COLOUR_MAP = 332, 1, 320
_JPEG = 7
# Compressions whose parts are files: JPEG, JPEG 2000, PNG, WebP.
_FILES = {6, _JPEG, 33003, 33004, 33005, 33007, 34712, 34892, 34933, 50001}
_DENSEST = 10_000  # pixels a byte, of YCbCr

_LARGEST_TILE = 2**24  # pixels, of a picture that has fewer


def pixels(page: TiffPage, data: bytes) -> np.ndarray:
    """Decodes the picture of a directory of the file `data`.

    Returns:
      uint8, uint16 or float32 pixels `[H, W, C]`, of 1 to 4 channels: grey, grey and alpha, RGB,
      RGBA. Zero is black.

    Raises:
      InputError: a file of a kind that is not supported; without the file's name.
      Exception: others, for a damaged file.
    """
    _check_kind(page)
    _check_data(page, data)
    kind, bits = int(page.photometric), page.bitspersample
    if kind == _YCBCR and page.compression == _JPEG:
        kind = _RGB  # the decoder turns it
    array = _by_libtiff(page, data) if kind == _YCBCR else _by_tifffile(page, kind)
    if kind in _TOLD:
        lost.tell(_TOLD[kind])
    elif bits == 1:
        lost.tell("bilevel")
    elif bits not in (8, 16, 32) or (array.dtype.kind == "f" and bits != 32):
        lost.tell("depth")
    return array


def _by_tifffile(page: TiffPage, kind: int) -> np.ndarray:
    if page.compression == 1:
        page.predictor = 1  # as others have it: none without compression
    array = page.asarray(squeeze=False)  # [planes, 1, H, W, channels of a plane]
    array = np.moveaxis(array[:, 0], 0, -2)
    array = array.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    bits = page.bitspersample
    if array.dtype.kind == "f":
        _check_floats(array)
        array, depth = array.astype(np.float32, copy=False), np.dtype(np.float32)
    else:
        depth = np.dtype(np.uint8 if array.dtype.itemsize == 1 else np.uint16)
    whole: np.ndarray = array.view(np.uint8) if bits == 1 else array
    colours, alpha = np.split(whole, [_COLOURS[kind]], axis=-1)
    if kind == _PALETTE:
        colour_map = _colour_map(page)
        depth = colour_map.dtype
        # Row by row, because indices take 8 bytes a pixel.
        colours = np.stack([colour_map[row] for row in colours[..., 0]])
    else:
        colours = _of_whole_bytes(colours, bits, depth)
    if kind == _WHITE_IS_ZERO:
        colours = 1 - colours if depth.kind == "f" else np.invert(colours)
    elif kind == _CMYK:
        colours = srgb.of_inks(colours, page.iccprofile or b"")
    elif kind in (_CIELAB, _ICCLAB):
        colours = srgb.of_lab(colours, signed=kind == _CIELAB)
    if not alpha.size:
        return colours
    return np.concatenate([colours, _of_whole_bytes(alpha, bits, depth)], axis=-1)


def _check_kind(page: TiffPage) -> None:
    """Refuses what has no sensible reading as grey or RGB."""
    check_size(page.imagewidth, page.imagelength)
    kind, samples = page.photometric, page.samplesperpixel
    if not {256, 257, 262}.issubset(tag.code for tag in page.tags):
        raise InputError("is damaged: the tags with its size or kind are missing")
    colours = _COLOURS.get(kind)
    if colours is None:
        raise InputError(f"has pixels of the kind {int(kind)} (photometric); convert it to RGB")
    if kind == _CMYK and page.tags.valueof(_INKS, _CMYK_INKS) != _CMYK_INKS:
        raise InputError("has other inks than CMYK; convert it to RGB")
    if samples - colours not in (0, 1):
        raise InputError(
            f"has {samples} channels, not {colours} with or without alpha; delete the others"
        )
    bits, dtype = page.bitspersample, page.dtype or np.dtype(object)
    plain = dtype.kind in "ub" and dtype.itemsize <= 2
    if not plain and not (dtype.kind == "f" and kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)):
        name = {2: "signed ", 3: "floating point ", 5: "complex ", 6: "complex "}
        depth = "/".join(map(str, np.ravel(bits)))
        raise InputError(
            f"has {name.get(page.sampleformat, '')}channels of {depth} bits; "
            "convert it to grey or RGB of 8 or 16 bits without sign, or floats of 32"
        )
    lab = kind in (_CIELAB, _ICCLAB) and bits not in (8, 16)
    if lab or (kind == _YCBCR and (bits, samples) != (8, 3)):
        raise InputError(f"is {'LAB' if lab else 'YCbCr'} of a rare kind; convert it to RGB")


def _check_data(page: TiffPage, data: bytes) -> None:
    """Refuses what is not all there, and what would take far more memory than its picture."""
    size = page.imagewidth * page.imagelength
    chunk = page.imagewidth * page.rowsperstrip
    if page.is_tiled:
        chunk = page.tilewidth * page.tilelength * page.tiledepth
        if chunk > max(size, _LARGEST_TILE):
            raise InputError(
                f"has tiles of {page.tilewidth} x {page.tilelength} pixels; save it in strips"
            )
    number = int(np.prod(page.chunked))
    if len(page.dataoffsets) < number or len(page.databytecounts) < number:
        raise InputError("is damaged: a part of its pixels is in no place; get the whole file")
    places = zip(page.dataoffsets, page.databytecounts, strict=False)
    if page.is_contiguous and page.photometric != _YCBCR:
        # It is read as one part, so that wrong lengths do not matter.
        places = [(page.dataoffsets[0], page.nbytes)]
    for start, length in places:
        if not start or not length or start + length > len(data):
            raise InputError(
                "is damaged or cut: a part of its pixels is missing; get the whole file"
            )
        if page.compression in _FILES:
            _check_header(data[start : start + length], chunk)


def _check_header(part: bytes, chunk: int) -> None:
    """Refuses a part, itself a picture file, whose header claims far more pixels than it has."""
    try:
        with Image.open(io.BytesIO(part)) as image:
            pixels = image.width * image.height
    except (OSError, SyntaxError, Image.DecompressionBombError):
        pixels = 0
    if not 0 < pixels <= 2 * chunk + 4096:
        raise InputError("is damaged: a part of its pixels is of a wrong size")


def _check_floats(array: np.ndarray) -> None:
    low, high = float(array.min()), float(array.max())
    if not np.isfinite((low, high)).all():
        kinds = {"NaN": np.isnan(array).any(-1), "infinite": np.isinf(array).any(-1)}
        counts = [f"{where.sum()} {name}" for name, where in kinds.items() if where.any()]
        places = np.argwhere(~np.isfinite(array).all(-1))
        several = "s, the first" if len(places) > 1 else ","
        row, column = places[0]
        raise InputError(
            f"has {' and '.join(counts)} pixel{several} in row {row}, column {column} "
            "(both count from 0); replace what is not a number"
        )
    if low < 0 or high > 1:
        raise InputError(f"has values from {low:g} to {high:g}; scale them to 0 to 1")


def _of_whole_bytes(values: np.ndarray, bits: int, depth: np.dtype) -> np.ndarray:
    """Spreads integers of so many bits over the range of uint8 or uint16; floats stay."""
    if depth.kind == "f" or bits == 8 * depth.itemsize or isinstance(bits, tuple):
        return values.astype(depth, copy=False)  # 5, 6 and 5 bits are spread by tifffile
    top, old_top = np.iinfo(depth).max, 2**bits - 1
    if top % old_top == 0:
        return values.astype(depth) * depth.type(top // old_top)
    return ((values.astype(np.uint32) * top + old_top // 2) // old_top).astype(depth)


def _colour_map(page: TiffPage) -> np.ndarray:
    """The palette's colours `[N, 3]`: of 16 bits only if they are not 8 bits made longer."""
    colours = page.colormap
    if colours is None or colours.shape[1] < 2**page.bitspersample:
        raise InputError("is damaged: its palette is missing or short")
    colours = colours.T.astype(np.uint16)
    high, low = colours >> 8, colours & 255
    if not high.any():  # as some old programs write
        return low.astype(np.uint8)
    return high.astype(np.uint8) if ((low == high) | (low == 0)).all() else colours


def _by_libtiff(page: TiffPage, data: bytes) -> np.ndarray:
    """RGB of YCbCr that is no JPEG, whose colours are of a lower resolution."""
    import imagecodecs

    if page.imagewidth * page.imagelength > _DENSEST * len(data):
        raise InputError("is damaged: it has too few bytes for its size")
    start = struct.pack(page.parent.byteorder + "Q", page.offset)
    if not page.parent.is_bigtiff:
        start = struct.pack(page.parent.byteorder + "I", page.offset)
    at = 8 if page.parent.is_bigtiff else 4
    turned = imagecodecs.tiff_decode(data[:at] + start + data[at + len(start) :], asrgb=True)
    orientation = page.tags.valueof(274, 1)  # libtiff mirrors, but does not swap the sides
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned[..., :3])
