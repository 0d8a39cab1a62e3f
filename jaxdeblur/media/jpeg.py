"""The parts of a JPEG file that Pillow does not hand from input to output."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import Any

from PIL import Image, JpegImagePlugin

from jaxdeblur.errors import InputError

START = b"\xff\xd8\xff"  # of every file

_COMMENT, _SCAN, _END = 0xFE, 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))


def settings(image: Image.Image, data: bytes) -> dict[str, Any]:
    """What keeps the output close to the input.

    Args:
      image: the file, opened by Pillow.
      data: the file.

    Returns:
      `segments`, the bytes of the metadata, and keyword arguments of Pillow's encoder.

    """
    kept = [
        data[start:end]
        for marker, start, end in _segments(data)
        if _is_metadata(marker) and not _is_stale(marker, data[start + 4 : start + 10])
    ]
    return {"segments": b"".join(kept), **_encoding(image)}


def completed(data: bytes) -> bytes:
    """Returns a file with its end marker, which some cameras and tools leave out.

    Raises:
      InputError: the file ends before its picture does; without the file's name.
    """
    scan = next((start for marker, start, _ in _segments(data) if marker == _SCAN), len(data))
    end = bytes((0xFF, _END))
    if data.find(end, scan) >= 0:
        return data
    # libjpeg makes pixels of whatever follows, and grey ones of nothing. So what follows must not
    # matter. Zeros, as an interrupted download leaves, are nothing.
    whole = data.rstrip(b"\0")
    with (
        Image.open(io.BytesIO(whole + end), formats=["JPEG"]) as image,
        Image.open(io.BytesIO(whole + b"\x55" * 64 + end), formats=["JPEG"]) as other,
    ):
        if scan < len(whole) and image.tobytes() == other.tobytes():
            return whole + end
    raise InputError("is truncated: the end of the picture is missing; get the whole file")


def with_segments(encoded: bytes, segments: bytes) -> bytes:
    """Puts `segments` in place of those that Pillow wrote."""
    for marker, start, _ in _segments(encoded):
        if not _is_metadata(marker):
            return encoded[:2] + segments + encoded[start:]
    raise ValueError("no picture in the JPEG file")


def _encoding(image: Image.Image) -> dict[str, Any]:
    # -1 stands for grey and for ratios that Pillow cannot write. Progressive is not kept: Pillow
    # fails on noisy pictures then, whose bytes outgrow its buffer.
    options: dict[str, Any] = {"subsampling": max(0, JpegImagePlugin.get_sampling(image))}
    tables = getattr(image, "quantization", {})
    if set(tables) in ({0}, {0, 1}) and sum(tables[0]) < _luma_sum_at_95():
        options["qtables"] = tables
    return options


@functools.cache
def _luma_sum_at_95() -> int:
    encoded = io.BytesIO()
    Image.new("L", (8, 8)).save(encoded, "JPEG", quality=95)
    with Image.open(encoded) as image:
        return sum(image.quantization[0])  # pyright: ignore[reportAttributeAccessIssue]


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields marker, start and end of the segments up to the first scan."""
    position = 2
    while True:
        position = data.index(b"\xff", position)
        marker = data[position + 1]
        if marker in (0x00, 0xFF):  # not a marker, and a fill byte
            position += 1
            continue
        size = 2
        if marker not in _WITHOUT_LENGTH:
            size += int.from_bytes(data[position + 2 : position + 4])
            if size < 4 or position + size > len(data):
                raise ValueError(f"wrong length of segment {marker:02X}")
        yield marker, position, position + size
        if marker == _SCAN:
            return
        position += size


def _is_metadata(marker: int) -> bool:
    return 0xE0 <= marker <= 0xEF or marker == _COMMENT


def _is_stale(marker: int, label: bytes) -> bool:
    # Adobe's says how colours were coded, MPF's where further pictures are in the input file.
    return (marker == 0xEE and label.startswith(b"Adobe")) or (
        marker == 0xE2 and label.startswith(b"MPF\0")
    )
