"""Video files in through PyAV: opened, checked for damage, and decoded frame by frame."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdeblur.errors import InputError
from jaxdeblur.media import sniffing
from jaxdeblur.media.coding import wholeness

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# FFmpeg also opens playlists, which can name other files and addresses: only these are tried.
_DEMUXERS = (
    "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,flv,mxf,ogg,ivf,nut,dv,m4v,h264,hevc,yuv4mpegpipe"
)

_TELL_DURATION = ("matroska,webm", "avi", "mxf")  # FFmpeg's demuxers


@dataclass(frozen=True)
class Clip:
    """An open file and its first video stream that is not a cover picture."""

    path: Path
    container: InputContainer
    video: VideoStream


@contextlib.contextmanager
def opened(source: str | os.PathLike[str]) -> Iterator[Clip]:
    """Opens a video; raises InputError where it is none, holds no video stream or is cut short."""
    import av
    from av.stream import Disposition

    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: {'not a file' if path.exists() else 'does not exist'}")
    if not path.stat().st_size:
        raise InputError(f"{path}: an empty file")
    if sniffing.is_photo(sniffing.head_of(path)):  # of HEIC FFmpeg would decode a part
        raise InputError(f"{path}: a photograph, not a video; give it the suffix of its kind")
    with blamed(f"{path}: not a video, or cut short"):
        # An absolute path, because FFmpeg takes what stands before a colon for a protocol.
        container = av.open(
            os.path.abspath(path),
            container_options={"format_whitelist": _DEMUXERS},
            metadata_errors="surrogateescape",
        )
    with container:
        pictures = Disposition.attached_pic
        videos = [stream for stream in container.streams.video if not stream.disposition & pictures]
        if not videos:
            raise InputError(f"{path}: has no video stream")
        if not videos[0].codec_context:
            raise InputError(f"{path}: its video has a codec that cannot be decoded")
        clip = Clip(path, container, videos[0])
        _check_whole(clip)
        yield clip


def _check_whole(clip: Clip) -> None:
    """Finds a file that was cut, where its header tells: FFmpeg would just end early."""
    size = clip.path.stat().st_size
    for stream in (clip.video, *clip.container.streams):
        whole = [entry.pos + entry.size <= size for entry in stream.index_entries]
        if not all(whole):
            lost = f"frame {whole.index(False)} on" if stream is clip.video else "some sound on"
            raise InputError(f"{clip.path}: the file is cut short (from {lost})")
    if fault := wholeness.fault(clip.path):
        raise InputError(f"{clip.path}: the file is {fault}")


def decoded(clip: Clip, copied: Copied | None = None) -> Iterator[VideoFrame]:
    """Frames in the order of presentation, each with a time stamp after the one before."""
    packets = clip.container.demux()
    used = [clip.video, *(copied.streams if copied else ())]
    number, size, earliest, end = 0, None, None, Fraction(0)
    step = round(1 / ((clip.video.guessed_rate or 25) * (clip.video.time_base or 1)))
    while True:
        with blamed(f"{clip.path}: damaged at frame {number}"):
            packet = next(packets, None)
            if packet is None:
                break
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.is_corrupt and packet.stream in used:
                raise InputError(f"{clip.path}: damaged at frame {number} (incomplete data)")
            frames: list[Any] = packet.decode() if packet.stream is clip.video else []
        if copied and packet.stream in copied.streams and packet.size:
            copied.waiting.append(packet)
        for frame in frames:
            if frame.is_corrupt:  # the decoder concealed it: a guess, not the picture
                raise InputError(f"{clip.path}: damaged at frame {number} (invalid data)")
            size = size or (frame.width, frame.height)
            if size != (frame.width, frame.height):
                raise InputError(f"{clip.path}: the size changes at frame {number}")
            # Broken files lack time stamps or repeat them, which no container takes.
            if earliest is not None:
                frame.pts = max(earliest - 1 + step if frame.pts is None else frame.pts, earliest)
            frame.pts = frame.pts or 0
            earliest = frame.pts + 1
            number += 1
            yield frame
    if not number:
        raise InputError(f"{clip.path}: holds no frame")
    # These demuxers take damage that they cannot skip for the end of the file. The headers of
    # others do not tell the duration, or what they tell was checked against the size.
    promised = Fraction(clip.container.duration or 0, 10**6)
    tolerance = min(1, promised / 10 + 2 / (clip.video.guessed_rate or 25))
    if clip.container.format.name in _TELL_DURATION and end + tolerance < promised:
        raise InputError(
            f"{clip.path}: damaged at frame {number} ({float(promised - end):.1f} seconds missing)"
        )


def side_data(frame: VideoFrame) -> dict[str, bytes]:
    """What a frame carries beside its samples, by FFmpeg's names; the first of each."""
    found: dict[str, bytes] = {}
    try:
        each: Any = frame.side_data
    except ValueError:  # a kind that PyAV does not know hides the others
        return found
    for data in each:
        found.setdefault(data.type.name, bytes(data))
    return found


@dataclass(frozen=True)
class Copied:
    """Streams of the source that are copied, and their packets that wait to be written.

    They wait because `restore` may pull frames, and with them packets, from another thread.
    """

    streams: list[Any] = field(default_factory=list)
    waiting: collections.deque[Packet] = field(default_factory=collections.deque)


@contextlib.contextmanager
def blamed(message: str) -> Iterator[None]:
    """Turns an error of FFmpeg or the file system into an `InputError` with the message."""
    from av.error import FFmpegError

    try:
        yield
    except (FFmpegError, OSError) as error:
        raise InputError(f"{message} ({error.strerror or error})") from error
