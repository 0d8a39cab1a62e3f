"""TIFF files of 8, 16 and (floats) 32 bits a channel; Pillow has no mode for most of them.

Tags are copied as they are stored, so that those unknown here stay, too. A directory is a dict from
the tag to its type and bytes; the bytes of a pointer to another directory (EXIF, GPS) are that
directory.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import Any

import numpy as np

from jaxdeblur.errors import InputError
from jaxdeblur.media.metadata import (
    Metadata,
    check_frames,
    check_size,
    valid_dpi,
    valid_orientation,
)

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

Directory = dict[int, tuple[int, Any]]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_SIZES = {16: 8, 17: 8, 18: 8}  # types of BigTIFF only
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 3, 4, 5, 7

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_EXTRA, _FORMAT = 338, 339
_ORIENTATION, _X_DPI, _Y_DPI, _DPI_UNIT, _XMP, _ICC = 274, 282, 283, 296, 700, 34675
_POINTERS = (34665, 34853, 40965)  # to the directories of EXIF, GPS and interoperability

# How the input's pixels are stored, and copies of them (reduced ones, Photoshop's layers).
_STRUCTURE = {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281}
_STRUCTURE |= {284, *range(288, 294), 317, 320, *range(322, 326), 330, *range(338, 342), 347}
_STRUCTURE |= {*range(512, 522), *range(529, 533), 37724}
_NO_EXIF = {_XMP, _ICC, 33723, 34377}  # and IPTC, Photoshop: have places of their own

_RAW = "is the raw file of a camera; develop it to a TIFF file first"
_REFUSED = {
    3: "has a palette; convert it to RGB",
    5: "is CMYK; convert it to RGB",
    6: "is YCbCr without JPEG compression; convert it to RGB",
    8: "is in the LAB colour space; convert it to RGB",
    9: "is in the LAB colour space; convert it to RGB",
    10: "is in the LAB colour space; convert it to RGB",
    32803: _RAW,
    34892: _RAW,
}

_NONE, _LZW, _JPEG, _DEFLATE = 1, 5, 7, 8
_STRIP_BYTES = 2**18


def decode(data: bytes) -> tuple[np.ndarray, Metadata]:
    """Decodes a TIFF file.

    Args:
      data: the file.

    Returns:
      uint8, uint16 or float32 pixels `[H, W, C]`, of 1 to 4 channels: grey, grey and alpha, RGB,
      RGBA. Zero is black.

    Raises:
      InputError: a file of a kind that is not supported; without the file's name.
      Exception: others, for a damaged file.
    """
    import imagecodecs

    order, big = ("<" if data[:1] == b"I" else ">"), b"+" in data[2:4]
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    tags = _directory(data, offset, order, big)
    if 50706 in tags or _integers(tags, 254, order, 0)[0] & 1:
        raise InputError(_RAW)
    check_frames(_count_directories(data, offset, order, big))
    shape = _check_kind(tags, order)
    array = imagecodecs.tiff_decode(data)
    if _integers(tags, _PLANAR, order, 1)[0] == 2 and shape[2] > 1:
        array = np.moveaxis(array.reshape(shape[2], *shape[:2]), 0, -1)
    array = array.reshape(shape)
    if _integers(tags, _PHOTOMETRIC, order, 1)[0] == 0:  # zero is white
        array = np.concatenate([_inverted(array[..., :1]), array[..., 1:]], axis=-1)
    return array, _metadata(tags, order)


def encode(array: np.ndarray, metadata: Metadata, same_format: bool) -> bytes:
    """Encodes pixels as `decode` returns them.

    Args:
      array: uint8, uint16 or float32 `[H, W, C]`, C from 1 to 4.
      metadata: what to write beside them.
      same_format: whether `metadata` is of a TIFF file; else its EXIF block becomes tags, and the
        pixels are deflated.
    """
    if same_format:
        own = metadata.same_format
        order, tags = own["order"], dict(own["tags"])
        compression, extra = own["compression"], own["extra"]
    else:
        order, tags = _tags(metadata)
        compression, extra = _DEFLATE, 2
    height, width, channels = array.shape
    integers = array.dtype.kind == "u"
    predicted = integers and compression != _NONE
    rows = max(1, _STRIP_BYTES // (width * channels * array.itemsize))
    strips = [
        _compressed(array[top : top + rows], order, compression, predicted)
        for top in range(0, height, rows)
    ]
    ends = np.cumsum([8, *map(len, strips)]).tolist()
    structure = {
        _WIDTH: (_LONG, [width]),
        _HEIGHT: (_LONG, [height]),
        _BITS: (_SHORT, [8 * array.itemsize] * channels),
        _COMPRESSION: (_SHORT, [compression]),
        _PHOTOMETRIC: (_SHORT, [2 if channels > 2 else 1]),
        _OFFSETS: (_LONG, ends[:-1]),
        _SAMPLES: (_SHORT, [channels]),
        _ROWS: (_LONG, [rows]),
        _COUNTS: (_LONG, [len(strip) for strip in strips]),
        _PREDICTOR: (_SHORT, [2 if predicted else 1]),
        _FORMAT: (_SHORT, [1 if integers else 3] * channels),
    }
    if channels in (2, 4):
        structure[_EXTRA] = (_SHORT, [extra])
    for tag, (kind, values) in structure.items():
        tags[tag] = kind, struct.pack(f"{order}{len(values)}{_INTEGERS[kind]}", *values)
    start = ends[-1] + ends[-1] % 2  # directories begin at even places
    return b"".join(
        [_header(order, start), *strips, bytes(ends[-1] % 2), _serialised(tags, order, start)]
    )


def _header(order: str, start: int) -> bytes:
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)


def _compressed(strip: np.ndarray, order: str, compression: int, predicted: bool) -> bytes:
    if predicted:  # every value less the one to its left
        strip = np.concatenate([strip[:, :1], strip[:, 1:] - strip[:, :-1]], axis=1)
    data = strip.astype(strip.dtype.newbyteorder(order)).tobytes()  # pyright: ignore[reportArgumentType]
    if compression == _NONE:
        return data
    if compression == _DEFLATE:
        return zlib.compress(data)
    import imagecodecs

    return bytes(imagecodecs.lzw_encode(data))


def _inverted(array: np.ndarray) -> np.ndarray:
    return np.invert(array) if array.dtype.kind == "u" else 1 - array


def _check_kind(tags: Directory, order: str) -> tuple[int, int, int]:
    """Refuses what is neither grey nor RGB, and returns the pixels' shape."""
    if _WIDTH not in tags or _HEIGHT not in tags or _PHOTOMETRIC not in tags:
        raise InputError("is damaged: the tags with its size are missing")
    width, height = (_integers(tags, tag, order, 0)[0] for tag in (_WIDTH, _HEIGHT))
    check_size(width, height)
    photometric = _integers(tags, _PHOTOMETRIC, order, 1)[0]
    is_jpeg = _integers(tags, _COMPRESSION, order, _NONE)[0] == _JPEG
    if photometric not in (0, 1, 2) and not (photometric == 6 and is_jpeg):
        unknown = f"has pixels of an unknown kind (photometric {photometric}); convert it to RGB"
        raise InputError(_REFUSED.get(photometric, unknown))
    bits = set(_integers(tags, _BITS, order, 1))
    kinds = set(_integers(tags, _FORMAT, order, 1))
    if (bits, kinds) not in [({8}, {1}), ({16}, {1}), ({32}, {3})]:
        if bits == {1}:
            raise InputError("has 1 bit a pixel; convert it to grey of 8 bits")
        name = "/".join({2: "signed ", 3: "floating point "}.get(kind, "") for kind in kinds)
        depth = "/".join(map(str, sorted(bits)))
        raise InputError(
            f"has {name}channels of {depth} bits; convert them to 8 or 16 bits, or floats of 32"
        )
    channels = _integers(tags, _SAMPLES, order, 1)[0]
    colours = 1 if photometric < 2 else 3
    if channels - colours not in (0, 1):
        raise InputError(f"has {channels} channels, not {colours} with or without alpha")
    # Tiles may be larger than the picture, and are decoded whole.
    check_size(*(_integers(tags, tag, order, 1)[0] for tag in (322, 323)))
    return height, width, channels


def _integers(tags: Directory, tag: int, order: str, default: int) -> tuple[int, ...]:
    kind, value = tags.get(tag, (0, b""))
    if kind not in _INTEGERS or not value:
        return (default,)
    letter = _INTEGERS[kind]
    return struct.unpack(f"{order}{len(value) // struct.calcsize('<' + letter)}{letter}", value)


def _directory(data: bytes, offset: int, order: str, big: bool, depth: int = 0) -> Directory:
    """Reads a directory and, to a depth of two, those it points to; leaves out damaged tags."""
    start, count, step, _ = _table(data, offset, order, big)
    sizes = _SIZES | _BIG_SIZES if big else _SIZES
    directory: Directory = {}
    budget = len(data)  # values of a sound file do not overlap
    for at in range(start, start + count * step, step):
        tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
        field = 8 if big else 4
        place, size = at + step - field, sizes.get(kind, 0) * number
        if size > field:
            (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
        if not 0 < size <= min(budget, len(data) - place):
            continue
        budget -= size
        directory.setdefault(tag, (kind, data[place : place + size]))
    for tag in _POINTERS:
        if tag in directory:
            place = _integers(directory, tag, order, 0)[0]
            del directory[tag]
            try:
                if depth < 2:
                    directory[tag] = _LONG, _directory(data, place, order, big, depth + 1)
            except (struct.error, InputError):
                continue  # the picture is worth more than a damaged EXIF block
    return directory


def _table(data: bytes, offset: int, order: str, big: bool) -> tuple[int, int, int, int]:
    """Start of a directory's entries, their number and size, and the next directory's offset."""
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    start, step = (offset + 8, 20) if big else (offset + 2, 12)
    end = start + count * step
    if end > len(data):
        raise InputError("is truncated: its tags are missing; get the whole file")
    following = 0
    if end + (8 if big else 4) <= len(data):
        (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, end)
    return start, count, step, following


def _count_directories(data: bytes, offset: int, order: str, big: bool) -> int:
    seen: set[int] = set()
    while offset and offset not in seen and offset < len(data):
        seen.add(offset)
        offset = _table(data, offset, order, big)[3]
    return len(seen)


def _serialised(directory: Directory, order: str, start: int) -> bytes:
    """A directory as it stands at place `start` of a file, with its values and subdirectories."""
    table, values = [struct.pack(order + "H", len(directory))], b""
    place = start + 2 + 12 * len(directory) + 4
    for tag, (kind, value) in sorted(directory.items()):
        at = place + len(values)
        if isinstance(value, dict):
            block = _serialised(value, order, at)
            number, field = 1, struct.pack(order + "I", at)
        else:
            block = value if len(value) > 4 else b""
            number = len(value) // _SIZES[kind]
            field = struct.pack(order + "I", at) if block else value.ljust(4, b"\0")
        values += block + bytes(len(block) % 2)
        table.append(struct.pack(order + "HHI", tag, kind, number) + field)
    return b"".join([*table, bytes(4), values])


def _metadata(tags: Directory, order: str) -> Metadata:
    kept = _classic({tag: entry for tag, entry in tags.items() if tag not in _STRUCTURE})
    for tag in (_X_DPI, _Y_DPI):
        if kept.get(tag, (_RATIONAL, b""))[0] != _RATIONAL:
            del kept[tag]  # Pillow could not open a JPEG file that has it
    block = {tag: entry for tag, entry in kept.items() if tag not in _NO_EXIF}
    compression = _integers(tags, _COMPRESSION, order, _NONE)[0]
    return Metadata(
        exif=_header(order, 8) + _serialised(block, order, 8),
        icc=tags.get(_ICC, (0, b""))[1],
        xmp=tags.get(_XMP, (0, b""))[1],
        dpi=_dpi(tags, order),
        orientation=valid_orientation(_integers(tags, _ORIENTATION, order, 1)[0]),
        same_format={
            "order": order,
            "tags": kept,
            "compression": compression if compression in (_NONE, _LZW) else _DEFLATE,
            "extra": _integers(tags, _EXTRA, order, 2)[0],
        },
    )


def _classic(directory: Directory) -> Directory:
    """Without the types that only BigTIFF has."""
    return {
        tag: (kind, _classic(value) if isinstance(value, dict) else value)
        for tag, (kind, value) in directory.items()
        if kind in _SIZES
    }


def _dpi(tags: Directory, order: str) -> tuple[float, float] | None:
    unit = {2: 1.0, 3: 2.54}.get(_integers(tags, _DPI_UNIT, order, 2)[0])
    found = []
    for tag in (_X_DPI, _Y_DPI):
        kind, value = tags.get(tag, (0, b""))
        if kind != _RATIONAL or unit is None:
            return None
        above, below = struct.unpack(order + "II", value[:8])
        found.append(above / below * unit if below else 0.0)
    return valid_dpi(found)


def _tags(metadata: Metadata) -> tuple[str, Directory]:
    """Byte order and tags of metadata from a file of another format."""
    order = ">" if metadata.exif[:1] == b"M" else "<"
    tags: Directory = {}
    # A damaged block is left out.
    with contextlib.suppress(struct.error, InputError):
        (offset,) = struct.unpack_from(order + "I", metadata.exif, 4)
        read = _directory(metadata.exif, offset, order, big=False)
        tags = {tag: entry for tag, entry in read.items() if tag not in _STRUCTURE}
    if metadata.icc:
        tags[_ICC] = _UNDEFINED, metadata.icc
    if metadata.xmp:
        tags[_XMP] = _BYTE, metadata.xmp
    if metadata.dpi and _X_DPI not in tags:
        for tag, value in zip((_X_DPI, _Y_DPI), metadata.dpi, strict=True):
            tags[tag] = _RATIONAL, struct.pack(order + "II", round(value * 1000), 1000)
        tags[_DPI_UNIT] = _SHORT, struct.pack(order + "H", 2)
    return order, tags
