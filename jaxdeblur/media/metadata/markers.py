"""The markers of JPEG streams: where segments begin, and where a picture ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

START = b"\xff\xd8\xff"  # of every file
END = b"\xff\xd9"

COMMENT, SCAN = 0xFE, 0xDA

_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
# What ends the coded data of a scan; zeros are stuffed and restarts are inside, fills come before.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def segments(data: bytes, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yields marker, start and end of the segments up to the first scan of a stream at `start`.

    Raises:
      ValueError: the stream is damaged or ends.
      IndexError: it ends.
    """
    position = start + 2
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
        if marker == SCAN:
            return
        position += size


def end(data: bytes, start: int = 0) -> int | None:
    """The place behind the end marker of the stream at `start`; None if it has none."""
    try:
        position = max(stop for _, _, stop in segments(data, start))
    except (ValueError, IndexError):
        return None
    while match := _AFTER_SCAN.search(data, position):
        marker = data[match.start() + 1]
        if marker == END[1]:
            return match.end()
        position = match.start() + 2 + int.from_bytes(data[match.end() : match.end() + 2])
    return None


def frame(data: bytes) -> tuple[int, int]:
    """Marker and bits a sample of the picture's frame; its marker tells how it is coded.

    Raises:
      ValueError: there is none, or the stream is damaged.
      IndexError: the stream ends.
    """
    for marker, start, _ in segments(data):
        if marker in _FRAMES:
            return marker, data[start + 4]
    raise ValueError("no picture in the JPEG file")


def is_metadata(marker: int) -> bool:
    """Whether a segment is an application's or a comment."""
    return 0xE0 <= marker <= 0xEF or marker == COMMENT


def metadata(data: bytes) -> list[tuple[int, bytes]]:
    """Marker and body of the metadata segments of a file, in their order."""
    return [
        (marker, data[start + 4 : stop])
        for marker, start, stop in segments(data)
        if is_metadata(marker)
    ]


def joined(parts: list[tuple[int, bytes]]) -> bytes:
    """The bytes of segments with the markers and bodies `parts`."""
    return b"".join(
        bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body for marker, body in parts
    )
