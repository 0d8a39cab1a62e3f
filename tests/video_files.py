"""Small video files for tests, of planes that the test computes."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Weights of red and blue, by AVColorSpace: BT.709, BT.601, BT.2020.
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


def to_yuv(rgb: np.ndarray, matrix: int, full: bool) -> list[np.ndarray]:
    """Y, Cb and Cr of RGB `[H, W, 3]`, in 8-bit levels, not rounded: the standards' formulas."""
    kr, kb = WEIGHTS[matrix]
    r, g, b = np.moveaxis(np.asarray(rgb, float), -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    if full:
        return [y, u + 128, v + 128]
    return [16 + y * 219 / 255, 128 + u * 224 / 255, 128 + v * 224 / 255]


def frame_of(
    planes: list[np.ndarray], pix_fmt: str, matrix: int = 2, color_range: int = 0
) -> av.VideoFrame:
    """A frame of 8-bit planes."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = np.rint(values)
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = matrix, color_range
    return frame


def planes_of(frame: av.VideoFrame) -> list[np.ndarray]:
    """The planes of an 8-bit frame."""
    return [
        np.frombuffer(plane, np.uint8)
        .reshape(plane.height, plane.line_size)[:, : plane.width]
        .astype(float)
        for plane in frame.planes
    ]


def write(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    *,
    count: int = 4,
    size: tuple[int, int] = (64, 48),
    options: dict[str, str] | None = None,
    stream_tags: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    rate: int = 25,
    form: str | None = None,
) -> Path:
    """A file of frames, each of one level, that differs from frame to frame, without colour."""
    with av.open(str(path), "w", format=form) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        context = stream.codec_context
        context.width, context.height = size
        context.pix_fmt = pix_fmt
        context.time_base = Fraction(1, rate)
        output.metadata.update(tags or {})
        stream.metadata.update(stream_tags or {})
        for index in range(count):
            frame = av.VideoFrame(*size, pix_fmt)
            for number, plane in enumerate(frame.planes):
                plane.update(bytes([128 if number else 60 + 20 * index]) * plane.buffer_size)
            frame.pts, frame.time_base = index, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(container.streams.video[0]))


def box(kind: bytes, *content: bytes) -> bytes:
    """A box of MP4, ISO/IEC 14496-12."""
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def box_in(data: bytes, *path: bytes) -> bytes:
    """The content of a box, by the kinds of those around it; b"" if it is not there."""
    for kind in path:
        start, found = 0, None
        while found is None and start + 8 <= len(data):
            size = int.from_bytes(data[start : start + 4], "big")
            header = 8
            if size == 1:
                size, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
            if data[start + 4 : start + 8] == kind:
                found = data[start + header : start + size]
            start += max(size, 8)
        if found is None:
            return b""
        data = found[8:] if kind == b"stsd" else found[78:] if kind == b"avc1" else found
    return data


def describe(path: Path, *boxes: bytes) -> None:
    """Adds boxes to the description of the H.264 stream of an MP4 file that ends with it."""
    data = bytearray(path.read_bytes())
    added = b"".join(boxes)
    start = data.index(b"avc1", data.rindex(b"moov")) - 4  # after the brands of the file
    end = start + int.from_bytes(data[start : start + 4], "big")
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = data.index(kind, data.rindex(b"moov")) - 4
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + len(added)).to_bytes(
            4, "big"
        )
    data[end:end] = added
    path.write_bytes(data)
