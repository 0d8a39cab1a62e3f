"""Colours of video frames: from what is stored to the RGB that is restored, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.plane import VideoPlane

Convert = Callable[["VideoFrame"], "VideoFrame"]

LIMITED, FULL = 1, 2  # AVColorRange
BT709 = 1  # AVColorSpace


def to_rgb() -> Convert:
    """The conversion of frames of a video to 8-bit RGB, by the matrix and range of their tags.

    What else the frames carry, such as captions, goes with them.
    """
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

    reformat, flags = VideoReformatter().reformat, _scaling_flags()

    def convert(frame: VideoFrame) -> VideoFrame:
        if frame.format.name == "rgb24":  # a copy, because the decoder may need its own again
            return VideoFrame.from_ndarray(frame.to_ndarray(), format="rgb24")
        if frame.format.name.startswith("gray") and frame.color_range == LIMITED:
            # swscale takes grey for full range whatever its tag: copy it to Y unchanged first.
            frame = reformat(frame, format="yuv420p", dst_color_range=FULL)
            frame.color_range = LIMITED
        return reformat(frame, format="rgb24", interpolation=flags)

    return convert


def to_yuv(pix_fmt: str) -> Convert:
    """The conversion of RGB frames to 8-bit YUV, by the matrix and range that they are tagged with.

    Args:
      pix_fmt: FFmpeg's name, such as "yuv420p".
    """
    from av.video.reformatter import VideoReformatter

    reformat, flags = VideoReformatter().reformat, _scaling_flags()
    reformat_deep = VideoReformatter().reformat  # each of them is set up once

    def convert(rgb: VideoFrame) -> VideoFrame:
        frame = reformat(rgb, format=pix_fmt, interpolation=flags)
        if rgb.color_range == FULL:
            # swscale rounds 8-bit chroma of full range down, by half a level on average.
            deep = reformat_deep(rgb, format=f"{pix_fmt}16le", interpolation=flags)
            for plane, deeper in zip(frame.planes[1:], deep.planes[1:], strict=True):
                plane.update(_rounded(deeper, plane.line_size))
        return frame

    return convert


def pix_fmt_of_result(frame: VideoFrame) -> str:
    """The 8-bit format, of those that H.264 has, which keeps a frame's resolution of colour.

    RGB becomes 4:4:4, and so do odd sizes, which 4:2:0 and 4:2:2 cannot have.
    """
    form, odd = frame.format, (frame.width % 2, frame.height % 2)
    colours = sum(not component.is_alpha for component in form.components)
    if form.is_rgb or form.has_palette:
        across = down = 1
    elif colours < 3:
        across = down = 2
    else:
        across, down = 8 // form.chroma_width(8), 8 // form.chroma_height(8)
    if across == 1 or odd[0] or (odd[1] and down > 1):
        return "yuv444p"
    return "yuv422p" if down == 1 else "yuv420p"


def _rounded(deep: VideoPlane, line_size: int) -> bytes:
    """A plane of 16 bits and full range in 8 bits, with rows of `line_size` bytes."""
    stored = np.frombuffer(memoryview(deep), "<u2").reshape(deep.height, deep.line_size // 2)
    rows = np.zeros((deep.height, line_size), np.uint8)
    # No colour is 32768 there and 128 here: 128 + (stored - 32768) / 257, rounded.
    rows[:, : deep.width] = (stored[:, : deep.width].astype(np.int32) + 256) // 257
    return rows.tobytes()


def _scaling_flags() -> int:
    """Flags of swscale; without exact rounding every pass would darken by a grey level."""
    from av.video.reformatter import Interpolation

    full_chroma = Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    return Interpolation.BICUBIC | full_chroma | Interpolation.ACCURATE_RND
