"""Tells what the result of a video will not hold of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING

from jaxdeblur.media import lost
from jaxdeblur.media.coding.decoding import Clip, side_data

if TYPE_CHECKING:
    from av import VideoFrame
    from av.stream import Stream

# Arrangements of two views, AVStereo3DType, that x264 does not write into the stream.
_UNWRITTEN_VIEWS = (5, 8)


def tell_streams(clip: Clip, copied: Container[int]) -> None:
    """Tells of the streams of a file that are not copied.

    Args:
      clip: the source.
      copied: the indices of those that are.
    """
    from av.stream import Disposition

    for stream in clip.container.streams:
        if stream.index in copied or stream.index == clip.video.index:
            continue
        if stream.type == "video":
            cover = stream.disposition & Disposition.attached_pic
            lost.tell("cover" if cover else "other_videos")
        elif stream.type == "attachment":
            lost.tell("attachments")
        elif stream.type in ("data", "unknown") and not _is_timecode(stream, clip):
            lost.tell("data")


def _is_timecode(stream: Stream, clip: Clip) -> bool:
    """Whether a stream tells the first time code, which is kept as a tag; FFmpeg reads no others.

    Of the tag it makes such a stream again, in MP4 and QuickTime.
    """
    code = stream.metadata.get("timecode")
    return code is not None and code == clip.video.metadata.get("timecode")


def tell_description(carried: Mapping[str, bytes], described: Container[bytes]) -> None:
    """Tells what the container says of the picture and the target's will not.

    Args:
      carried: side data of the first frame.
      described: kinds of the boxes that describe the target.
    """
    if "SPHERICAL" in carried and b"sv3d" not in described:
        lost.tell("spherical")
    arrangement = int.from_bytes(carried.get("STEREO3D", b"")[:4], sys.byteorder)
    if arrangement in _UNWRITTEN_VIEWS and b"st3d" not in described:
        lost.tell("views")


def telling(clip: Clip) -> Callable[[VideoFrame], None]:
    """A function that looks at each frame of a video as it is decoded, and tells each loss once."""
    told: set[str] = set()
    tags = {key.lower(): value for key, value in clip.video.metadata.items()}
    if tags.get("alpha_mode") == "1":  # of WebM: beside the data that are decoded
        told.add("transparent_video")
        lost.tell("transparent_video")

    def look(frame: VideoFrame) -> None:
        for name in _of_frame(frame, told):
            if name not in told:
                told.add(name)
                lost.tell(name)

    return look


def _of_frame(frame: VideoFrame, told: Container[str]) -> Iterator[str]:
    if any(component.bits > 8 for component in frame.format.components):
        yield "deep"
    if "transparent_video" not in told and _transparent(frame):
        yield "transparent_video"
    if frame.interlaced_frame:
        yield "interlaced"
    carried = side_data(frame).keys()
    if carried & {"DOVI_METADATA", "DOVI_RPU_BUFFER"}:
        yield "dolby_vision"
    if carried & {"DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID"}:
        yield "dynamic_hdr"
    if "ICC_PROFILE" in carried:
        yield "video_icc"


def _transparent(frame: VideoFrame) -> bool:
    if not frame.format.has_palette and not any(part.is_alpha for part in frame.format.components):
        return False
    return frame.reformat(format="rgba").to_ndarray()[..., 3].min() < 255
