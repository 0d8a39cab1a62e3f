"""EXIF blocks that hold for other pixels: their thumbnails and previews are made anew.

Bytes are changed where they stand, because the maker notes of cameras hold offsets from the start
of the block, which no program knows all of. Only what lies at the end may go or grow.
"""

from __future__ import annotations

import dataclasses
import io
import struct

import numpy as np
from PIL import Image

from jaxdeblur.media.metadata import markers

MOST_IN_JPEG = 65533 - 6  # bytes of a block: a segment less its label

_COMPRESSION, _OFFSET, _LENGTH = 259, 513, 514  # of a thumbnail
_STRIP, _STRIP_LENGTH = 273, 279
_WIDTH, _HEIGHT, _EXIF, _EXIF_WIDTH, _EXIF_HEIGHT = 256, 257, 34665, 40962, 40963
_X_RESOLUTION = 282
_VIDEO_FLAG = 0x8897  # of phones of Xiaomi
_LETTERS = {3: "H", 4: "I"}
_JPEG = 6

_LONGEST = 160  # pixels of a thumbnail, as EXIF has it
_QUALITIES = (88, 75, 60, 40, 20)


@dataclasses.dataclass(frozen=True)
class _Directory:
    """Where a directory lies, and each of its tags of one number: place, letter and value."""

    start: int
    end: int  # of the tags, where the next directory's offset stands
    numbers: dict[int, tuple[int, str, int]]


def renewed(block: bytes, array: np.ndarray, most: int | None = None) -> tuple[bytes, bool]:
    """A block with the thumbnail and previews of other pixels.

    Args:
      block: the block, a TIFF structure. A damaged one stays as it is.
      array: pixels `[H, W, C]`, C from 1 to 4, of any type that a photograph has.
      most: bytes that the result may have.

    Returns:
      The block, and whether it had a picture that it has no longer.
    """
    order = {b"II": "<", b"MM": ">"}.get(block[:2], "")
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        chain = _chain(block, order, first)
    except (struct.error, ValueError):
        return block, False
    if not order or not chain:
        return block, False
    changed = bytearray(block)
    _set_size(changed, order, chain[0], array.shape[:2])
    lost, new = False, range(0)
    if len(chain) > 1:
        new = _put_thumbnail(changed, order, chain, array, most)
        if not new or len(chain) > 2:
            lost = True
        holder = chain[1] if new else chain[0]  # no directory follows this one
        struct.pack_into(order + "I", changed, holder.end, 0)
    lost |= _renew_previews(changed, array, new)
    return bytes(changed), lost


def tells_resolution(block: bytes) -> bool:
    """Whether a block has the resolution of the picture."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2], "<")
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        places = range(start + 2, start + 2 + 12 * count, 12)
        return any(struct.unpack_from(order + "H", block, at)[0] == _X_RESOLUTION for at in places)
    except struct.error:
        return False


def _chain(block: bytes, order: str, start: int) -> list[_Directory]:
    """The directories that follow each other, the picture's first."""
    chain: list[_Directory] = []
    seen: set[int] = set()
    while start and start not in seen:
        seen.add(start)
        if start + 6 > len(block) and chain:
            break  # the pointer to a thumbnail is wrong
        directory, start = _directory(block, order, start)
        chain.append(directory)
    return chain


def _directory(block: bytes, order: str, start: int) -> tuple[_Directory, int]:
    (count,) = struct.unpack_from(order + "H", block, start)
    end = start + 2 + 12 * count
    numbers = {}
    for at in range(start + 2, end, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", block, at)
        if kind in _LETTERS and number == 1:
            (value,) = struct.unpack_from(order + _LETTERS[kind], block, at + 8)
            numbers[tag] = at + 8, _LETTERS[kind], value
    following = 0
    if end + 4 <= len(block):
        (following,) = struct.unpack_from(order + "I", block, end)
    return _Directory(start, end, numbers), following


def _set(block: bytearray, order: str, directory: _Directory, tag: int, value: int) -> None:
    if tag in directory.numbers:
        at, letter, _ = directory.numbers[tag]
        struct.pack_into(order + letter, block, at, value)


def _set_size(block: bytearray, order: str, main: _Directory, size: tuple[int, ...]) -> None:
    """Exchanges width and height if the pixels were turned, and says that there is no video."""
    places = [(main, _WIDTH, _HEIGHT)]
    if _EXIF in main.numbers:
        try:
            exif, _ = _directory(bytes(block), order, main.numbers[_EXIF][2])
        except struct.error:
            exif = main
        places.append((exif, _EXIF_WIDTH, _EXIF_HEIGHT))
        for directory in (main, exif):
            _set(block, order, directory, _VIDEO_FLAG, 0)
    for directory, *tags in places:
        if [directory.numbers.get(tag, (0, "", 0))[2] for tag in tags] == list(size):
            for tag, value in zip(tags, (size[1], size[0]), strict=True):
                _set(block, order, directory, tag, value)


def _put_thumbnail(
    block: bytearray, order: str, chain: list[_Directory], array: np.ndarray, most: int | None
) -> range:
    """Replaces the thumbnail; returns where the new one is, nowhere if it cannot be."""
    directory = chain[1]
    _erase_strip(block, chain)
    if _OFFSET not in directory.numbers or _LENGTH not in directory.numbers:
        return range(0)
    if directory.numbers.get(_COMPRESSION, (0, "", _JPEG))[2] != _JPEG:
        return range(0)
    start = directory.numbers[_OFFSET][2]
    old = range(start, start + directory.numbers[_LENGTH][2])
    if old.stop > len(block) or block[start : start + 2] != markers.START[:2]:
        return range(0)
    if _overlaps(start, old.stop, chain):
        return range(0)
    longest = min(_LONGEST, max(_size(bytes(block[start : old.stop])) or (_LONGEST,)))
    block[start : old.stop] = bytes(len(old))
    at_end = old.stop >= len(block) - 3 and not any(block[old.stop :])
    if at_end:
        del block[start:]
    for quality in _QUALITIES:
        jpeg, size = _jpeg(array, (longest, longest), quality)
        at = start if at_end or len(jpeg) <= len(old) else len(block) + len(block) % 2
        if most is None or max(len(block), at + len(jpeg)) <= most:
            break
    else:
        return range(0)
    block.extend(bytes(max(0, at - len(block))))
    block[at : at + len(jpeg)] = jpeg
    for tag, value in ((_OFFSET, at), (_LENGTH, len(jpeg)), (_WIDTH, size[0]), (_HEIGHT, size[1])):
        _set(block, order, directory, tag, value)
    return range(at, at + len(jpeg))


def _renew_previews(block: bytearray, array: np.ndarray, but: range) -> bool:
    """Replaces further pictures, of maker notes, where they stand; tells whether one is gone."""
    lost, position, old = False, 0, bytes(block)
    while (start := old.find(markers.START, position)) >= 0:
        position = but.stop if start in but else start + 2
        stop = None if start in but else markers.end(old, start)
        size = stop and _size(old[start:stop])
        if not stop or not size:
            continue
        jpegs = (_jpeg(array, size, quality)[0] for quality in _QUALITIES)
        jpeg = next((jpeg for jpeg in jpegs if len(jpeg) <= stop - start), b"")
        block[start:stop] = jpeg.ljust(stop - start, b"\0")
        position = stop
        lost |= not jpeg
    return lost


def _erase_strip(block: bytearray, chain: list[_Directory]) -> None:
    """Erases a thumbnail that is not compressed."""
    numbers = chain[1].numbers
    if _STRIP in numbers and _STRIP_LENGTH in numbers:
        start = numbers[_STRIP][2]
        stop = start + numbers[_STRIP_LENGTH][2]
        if stop <= len(block) and not _overlaps(start, stop, chain):
            block[start:stop] = bytes(stop - start)


def _overlaps(start: int, stop: int, chain: list[_Directory]) -> bool:
    return any(start < each.end + 4 and each.start < stop for each in chain)


def _size(jpeg: bytes) -> tuple[int, int] | None:
    """Width and height of a picture; None of what only looks like one."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            image.load()
            return image.size
    except (OSError, SyntaxError, ValueError, struct.error):
        return None


def _jpeg(array: np.ndarray, box: tuple[int, int], quality: int) -> tuple[bytes, tuple[int, int]]:
    """A small JPEG file of the pixels, at most as large as `box`, and its width and height."""
    colours = array[..., : 3 if array.shape[-1] > 2 else 1]
    # Every n-th pixel, four or more of them for one of the small picture: quick, without copies.
    step = max(1, min(array.shape[1] // (4 * box[0]), array.shape[0] // (4 * box[1])))
    small = colours[::step, ::step]
    if small.dtype != np.uint8:
        top = 1 if small.dtype.kind == "f" else np.iinfo(small.dtype).max
        small = np.rint(np.clip(small.astype(np.float32) / top, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(small[..., 0] if small.shape[-1] == 1 else small))
    scale = min(1, box[0] / array.shape[1], box[1] / array.shape[0])
    width, height = (max(1, round(side * scale)) for side in array.shape[1::-1])
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue(), image.size
