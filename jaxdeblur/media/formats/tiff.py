"""TIFF files of 8, 16 and (floats) 32 bits a channel, by tifffile; Pillow has no mode for most.

Tags are copied as they are stored, so that those unknown here stay, too. A directory is a dict from
the tag to its type and bytes; the bytes of a pointer to another directory (EXIF, GPS) are that
directory. tifffile writes the pixels; the directory is then written anew behind them, because
tifffile writes no such pointers.
"""

from __future__ import annotations

import contextlib
import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdeblur.errors import InputError
from jaxdeblur.media import lost
from jaxdeblur.media.formats.tiff_pages import picture
from jaxdeblur.media.formats.tiff_pixels import pixels
from jaxdeblur.media.metadata import photoshop, xmp
from jaxdeblur.media.metadata.common import Metadata, valid_dpi, valid_orientation

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffTags

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

Directory = dict[int, tuple[int, Any]]

# Bytes of a value, by its type; those of BigTIFF only, and of pointers, are left out.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 3, 4, 5, 7

_DESCRIPTION, _X_DPI, _Y_DPI, _DPI_UNIT, _TRANSFER = 270, 282, 283, 296, 301
_FORMAT, _XMP, _ICC = 339, 700, 34675
_POINTERS = (34665, 34853, 40965)  # to the directories of EXIF, GPS and interoperability
_LAYERS = 37724  # of Photoshop

# How the input's pixels are stored, and copies of them (reduced ones, Photoshop's layers).
_STRUCTURE = {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281}
_STRUCTURE |= {284, *range(288, 294), 317, 320, *range(322, 329), 330, *range(332, 335), 336}
_STRUCTURE |= {*range(338, 342), 347, *range(512, 522), *range(529, 533), 32997, 32998, _LAYERS}
_IPTC, _PHOTOSHOP, _CREDENTIALS = 33723, 34377, 52545
_NO_EXIF = {_XMP, _ICC, _IPTC, _PHOTOSHOP}  # have places of their own

_NONE, _LZW, _DEFLATE, _OLD_DEFLATE = 1, 5, 8, 32946
_ALPHA = 2  # not multiplied into the colours
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
    import tifffile

    # Of these kinds tifffile would read more directories at once.
    none = {"is_lsm": False, "is_ndpi": False, "is_scanimage": False}
    try:
        with tifffile.TiffFile(io.BytesIO(data), **none) as file:  # pyright: ignore[reportArgumentType]
            page = picture(file)
            array = pixels(page, data)
            return array, _metadata(file, page, array)
    except tifffile.TiffFileError as error:
        raise InputError(f"is damaged or truncated ({error}); get the whole file") from None


def encode(array: np.ndarray, metadata: Metadata, same_format: bool) -> bytes:
    """Encodes pixels as `decode` returns them.

    Args:
      array: uint8, uint16 or float32 `[H, W, C]`, C from 1 to 4.
      metadata: what to write beside them.
      same_format: whether `metadata` is of a TIFF file; else its EXIF block becomes tags, and the
        pixels are deflated.
    """
    import tifffile

    own = metadata.same_format if same_format else _converted(metadata)
    order, compression = own["order"], own["compression"]
    _, width, channels = array.shape
    integers = array.dtype.kind == "u"
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=False, byteorder=order) as writer:
        writer.write(
            array[..., 0] if channels == 1 else array,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=[own["extra"]] if channels in (2, 4) else [],
            compression=compression,
            predictor=integers and compression != _NONE,
            rowsperstrip=max(1, _STRIP_BYTES // (width * channels * array.itemsize)),
            metadata=None,
            software=False,
        )
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as file:
        written = _directory(file, file.pages.first.tags)
    tags = own["tags"] | {tag: entry for tag, entry in written.items() if tag in _STRUCTURE}
    formats = [1 if integers else 3] * channels
    tags[_FORMAT] = _SHORT, struct.pack(f"{order}{channels}H", *formats)
    start = buffer.seek(0, io.SEEK_END)
    start += start % 2  # directories begin at even places
    buffer.seek(start)
    buffer.write(_serialised(tags, order, start))
    buffer.seek(4)
    buffer.write(struct.pack(order + "I", start))
    return buffer.getvalue()


def _directory(file: TiffFile, tags: TiffTags, depth: int = 0) -> Directory:
    """Reads tags and, to a depth of two, the directories that they point to."""
    import tifffile

    handle, threshold = file.filehandle, file.tiff.tagoffsetthreshold
    directory: Directory = {}
    budget = handle.size  # values of a sound file do not overlap
    for tag in tags:
        if tag.code in _POINTERS:
            # The picture is worth more than a damaged EXIF block, which raises anything.
            with contextlib.suppress(Exception):
                if depth < 2:
                    handle.seek(tag.valueoffset)
                    below = tifffile.TiffPage(file, 0).tags
                    directory[tag.code] = _LONG, _directory(file, below, depth + 1)
            continue
        size = tag.count * _SIZES.get(int(tag.dtype), 0)
        if tag.code == _LAYERS or not 0 < size <= budget:
            continue
        budget -= size
        inline = tag.offset + file.tiff.tagsize - threshold
        handle.seek(inline if size <= threshold else tag.valueoffset)
        directory.setdefault(tag.code, (int(tag.dtype), handle.read(size)))
    return directory


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


def _metadata(file: TiffFile, page: TiffPage, array: np.ndarray) -> Metadata:
    tags = _directory(file, file.pages.first.tags)  # that of a copy, if it comes first
    tags.pop(_DESCRIPTION, None)
    tags |= _directory(file, page.tags)
    if _LAYERS in page.tags:
        lost.tell("layers")
    kept = {tag: entry for tag, entry in tags.items() if tag not in _STRUCTURE}
    if page.photometric in (5, 8, 9):  # the profile is not one of RGB
        kept.pop(_ICC, None)
    other_depth = 8 * array.itemsize != page.bitspersample
    other_channels = array.shape[-1] != page.samplesperpixel
    planar = page.planarconfig == 2
    if other_depth:
        kept.pop(_TRANSFER, None)
    if (page.is_ome and (other_depth or other_channels)) or (
        page.is_shaped and (planar or other_channels)
    ):
        lost.tell("description")
        kept.pop(_DESCRIPTION, None)
    _make_true(kept)
    for tag in (_X_DPI, _Y_DPI):
        kind, value = kept.get(tag, (_RATIONAL, bytes(8)))
        if (kind, len(value)) != (_RATIONAL, 8):
            del kept[tag]  # Pillow could not open a JPEG file that has it
    if page.compression not in (_NONE, _LZW, _DEFLATE, _OLD_DEFLATE):
        lost.tell("compression")
    if file.is_bigtiff:
        lost.tell("bigtiff")
    if page.is_tiled or planar:
        lost.tell("layout")
    extra = next(iter(page.extrasamples), _ALPHA)
    order, first = file.byteorder, file.pages.first.tags
    block = {tag: entry for tag, entry in kept.items() if tag not in _NO_EXIF}
    header = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    unit = {2: 1.0, 3: 2.54}.get(page.resolutionunit)
    return Metadata(
        exif=header + _serialised(block, order, 8) if block else b"",
        icc=kept.get(_ICC, (0, b""))[1],
        xmp=kept.get(_XMP, (0, b""))[1],
        dpi=valid_dpi([value * unit for value in page.resolution])
        if unit and all(tag in kept and tag in page.tags for tag in (_X_DPI, _Y_DPI))
        else None,
        orientation=int(valid_orientation(page.tags.valueof(274, first.valueof(274)))),
        same_format={
            "order": order,
            "tags": kept,
            "compression": int(page.compression) if page.compression in (_NONE, _LZW) else _DEFLATE,
            "extra": int(extra) if extra in (0, 1) else _ALPHA,
        },
    )


def _make_true(tags: Directory) -> None:
    """Takes out what holds for the old pixels alone: thumbnails, credentials."""
    if tags.pop(_CREDENTIALS, None):
        lost.tell("c2pa")
    if _PHOTOSHOP in tags:
        kind, resources = tags[_PHOTOSHOP]
        tags[_PHOTOSHOP] = kind, photoshop.without_thumbnails(resources)
        if tags[_PHOTOSHOP][1] != resources:
            lost.tell("previews")
    if _XMP in tags:
        kind, packet = tags.pop(_XMP)
        cleaned = xmp.cleaned(packet)
        lost.tell_all(cleaned.lost)
        if cleaned.packet:
            tags[_XMP] = kind, cleaned.packet


def _converted(metadata: Metadata) -> dict[str, Any]:
    """What `encode` needs of metadata from a file of another format."""
    import tifffile

    order = ">" if metadata.exif[:1] == b"M" else "<"
    tags: Directory = {}
    with contextlib.suppress(Exception):  # a damaged block, which raises anything, is left out
        with tifffile.TiffFile(io.BytesIO(metadata.exif)) as file:
            read = _directory(file, file.pages.first.tags)
        tags = {tag: entry for tag, entry in read.items() if tag not in _STRUCTURE}
    if metadata.icc:
        tags[_ICC] = _UNDEFINED, metadata.icc
    if metadata.xmp:
        tags[_XMP] = _BYTE, metadata.xmp
    if metadata.dpi and _X_DPI not in tags:
        for tag, value in zip((_X_DPI, _Y_DPI), metadata.dpi, strict=True):
            tags[tag] = _RATIONAL, struct.pack(order + "II", round(value * 1000), 1000)
        tags[_DPI_UNIT] = _SHORT, struct.pack(order + "H", 2)
    return {"order": order, "tags": tags, "compression": _DEFLATE, "extra": _ALPHA}
