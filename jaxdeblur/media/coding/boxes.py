"""What a container says of a picture, carried to another one as boxes of MP4.

A spherical mapping, the arrangement of two views, the mastering display, light levels and the part
to show are side data of FFmpeg's streams, which PyAV does not hand out. But it passes on all of a
stream's: so FFmpeg writes the source's into the header of an MP4 file in memory. The boxes found
there are put into the result, if that is MP4 or QuickTime, or else into another header, of H.264,
whose stream is the pattern of the result's. (Of a pattern FFmpeg writes no mapping to QuickTime,
and to MP4 also a box that says of two views in one frame that they are not.)
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.video.stream import VideoStream

# Boxes that stay true of restored frames: of ISO/IEC 14496-12, and of Google's Spherical Video V2.
# Apple's `vexu` is not among them: it also tells of views in layers that are not decoded.
_LASTING = (b"clap", b"clli", b"mdcv", b"amve", b"st3d", b"sv3d")

_TO_SAMPLE_ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_FIELDS = {b"stsd": 8}  # bytes before the boxes inside
_FIELDS_OF_SAMPLE_ENTRY = 78

# The header alone, with the boxes that FFmpeg calls unofficial.
_HEADER_ONLY = {"movflags": "empty_moov", "strict": "unofficial"}


def describing(stream: VideoStream) -> dict[bytes, bytes]:
    """The boxes that describe a stream's picture, by kind; none where MP4 has not its codec."""
    import av
    from av.error import FFmpegError

    header = io.BytesIO()
    try:
        with av.open(header, "w", format="mp4", container_options=_HEADER_ONLY) as output:
            output.add_stream_from_template(stream, opaque=True)
            output.start_encoding()
        data = header.getvalue()
        _, inside = _sample_entry(data)
    except (ValueError, FFmpegError):
        return {}
    return {kind: data[box] for kind, box in _boxes(data, inside) if kind in _LASTING}


def h264_header(boxes: dict[bytes, bytes], width: int, height: int) -> io.BytesIO:
    """An MP4 file of no frames, whose H.264 stream the boxes describe."""
    import av

    header = io.BytesIO()
    with av.open(header, "w", format="mp4", container_options=_HEADER_ONLY) as output:
        output.add_stream("libx264", rate=25, width=width, height=height)
        output.start_encoding()
    return io.BytesIO(_with_boxes(header.getvalue(), boxes))


def insert(path: Path, boxes: dict[bytes, bytes]) -> None:
    """Puts boxes into the first stream's description of a file that FFmpeg has written.

    Args:
      path: an MP4 or QuickTime file, of which the description is the end.
      boxes: what to put there.

    Raises:
      ValueError: it is of another form.
    """
    with path.open("rb+") as file:
        start, size = 0, path.stat().st_size
        while start < size:
            file.seek(start)
            head = file.read(16)
            if head[4:8] == b"moov":
                break
            length = int.from_bytes(head[:4], "big")
            start += max(length if length != 1 else int.from_bytes(head[8:], "big"), 8)
        file.seek(start)
        changed = _with_boxes(file.read(), boxes)
        file.seek(start)
        file.write(changed)


def _with_boxes(data: bytes, boxes: dict[bytes, bytes]) -> bytes:
    changed = bytearray(data)
    around, inside = _sample_entry(data)
    added = b"".join(boxes.values())
    for start in around:
        size = int.from_bytes(data[start : start + 4], "big") + len(added)
        changed[start : start + 4] = size.to_bytes(4, "big")
    changed[inside.stop : inside.stop] = added
    return bytes(changed)


def _sample_entry(data: bytes) -> tuple[list[int], slice]:
    """Finds the description of a file's first stream.

    Returns:
      Where it and the boxes around it begin, and where the boxes inside it are.

    Raises:
      ValueError: there is none.
    """
    starts, inside = [], slice(0, len(data))
    for wanted in _TO_SAMPLE_ENTRY:
        for kind, box in _boxes(data, inside):
            if kind == wanted:
                starts.append(box.start)
                inside = slice(box.start + 8 + _FIELDS.get(kind, 0), box.stop)
                break
        else:
            raise ValueError(f"no {wanted} box")
    for _, box in _boxes(data, inside):
        return [*starts, box.start], slice(box.start + 8 + _FIELDS_OF_SAMPLE_ENTRY, box.stop)
    raise ValueError("no sample entry")


def _boxes(data: bytes, inside: slice) -> Iterator[tuple[bytes, slice]]:
    """The kinds and places of boxes; FFmpeg's headers have none of 64-bit or open size."""
    start = inside.start
    while start + 8 <= inside.stop:
        size = int.from_bytes(data[start : start + 4], "big")
        yield data[start + 4 : start + 8], slice(start, start + size)
        start += max(size, 8)
