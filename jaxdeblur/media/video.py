"""Video in and out through PyAV: frames of a file, and the same file with restored frames."""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import os
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdeblur.errors import InputError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_log = logging.getLogger(__name__)

SUFFIXES: tuple[str, ...] = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"),
    *(".3gp", ".mts", ".m2ts"),
)

Frames = Iterable[np.ndarray]  # RGB uint8 [H, W, 3]
Restore = Callable[[Iterator[np.ndarray]], Frames]
StrPath = str | os.PathLike[str]

# Containers that hold H.264 with its time stamps and display rotation, by suffix: FFmpeg's names.
_MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".m4v": "mp4"}
CONTAINERS: tuple[str, ...] = tuple(_MUXERS)

# FFmpeg also opens playlists, which can name other files and addresses: only these are tried.
_DEMUXERS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,flv"

# Tags that describe the file or the encoder that wrote it, not what it shows.
_STALE_TAGS = ("encoder", "major_brand", "minor_version", "compatible_brands", "duration", "bps")
_STALE_STARTS = ("number_of_", "_statistics_", "bps-", "duration-")

_BT709 = 1  # AVColorSpace
_LIMITED, _FULL = 1, 2  # AVColorRange


def count_frames(path: StrPath) -> int | None:
    """Number of frames of the first video stream, as far as the header tells.

    Without a count in the header it is the duration times the average rate, so it can be off by a
    few frames: enough for a progress bar. None if the header tells neither.

    Raises:
      InputError: the file is missing, not a video, or has no video stream.
    """
    with _opened(path) as clip:
        if clip.video.frames:
            return clip.video.frames
        rate, time_base = clip.video.average_rate, clip.video.time_base
        if clip.video.duration and time_base:
            seconds = clip.video.duration * time_base
        else:
            seconds = Fraction(clip.container.duration or 0, 10**6)
        return round(seconds * (rate or 0)) or None


def read_frames(path: StrPath) -> Iterator[np.ndarray]:
    """Decodes the first video stream frame by frame, in the order of presentation.

    Frames are RGB uint8 `[H, W, 3]` as stored: a display rotation is not applied, deeper samples
    are converted to 8 bits, transparency is dropped.

    Raises:
      InputError: the file is missing, not a video, cut short or damaged; the message names it and
        the frame (the first is 0).
    """
    with _opened(path) as clip:
        to_rgb = _rgb_converter(clip)
        for frame in _decoded(clip):
            yield to_rgb(frame)


def transcode(
    source: StrPath,
    target: StrPath,
    restore: Restore,
    *,
    quality: int = 18,
    overwrite: bool = False,
) -> int:
    """Writes a video again with restored frames, whole or not at all.

    The picture is encoded as 8-bit H.264 (10-bit sources are converted) of the same size. Time
    stamps, average rate, pixel aspect ratio, display rotation, colour tags, titles, dates,
    languages and chapters are kept, and audio is copied without encoding it again. So are
    subtitles where the container takes them. Matroska rounds time stamps to milliseconds. Other
    video streams, cover pictures, attachments and data streams are left out, and interlaced frames
    become progressive ones.

    Args:
      source: video file.
      target: file to write, `.mp4`, `.m4v`, `.mov` or `.mkv`.
      restore: turns an iterator of frames, RGB uint8 `[H, W, 3]`, into as many of the same size.
      quality: x264's constant rate factor in 0..51; lower is better, 18 is hard to tell apart.
      overwrite: whether an existing target is replaced.

    Returns:
      Number of frames written.

    Raises:
      InputError: the source cannot be read, or the target cannot be written.
      ValueError: `restore` gave a wrong number of frames, or one of a wrong size or type.
    """
    target = Path(target)
    if not 0 <= quality <= 51:
        raise InputError(f"quality = {quality} is outside 0..51 (lower is better)")
    if target.suffix.lower() not in _MUXERS:
        raise InputError(
            f"{target}: a {target.suffix or 'file without suffix'} cannot hold the restored "
            f"video; choose one of {', '.join(_MUXERS)}"
        )
    _check_folder(target.parent, target)
    count = 0
    with (
        _opened(source) as clip,
        _replacing(target, overwrite) as partial,
        contextlib.closing(_Writer(clip, target, partial, quality)) as writer,
        contextlib.closing(_restored(clip, restore, writer.copied)) as frames,
    ):
        for image, stamp, duration in frames:
            writer.write(image, stamp, duration)
            count += 1
        writer.finish()
    return count


def write_frames(
    source: StrPath, folder: StrPath, restore: Restore, *, overwrite: bool = False
) -> int:
    """Writes the restored frames of a video as `00000000.png`, `00000001.png`, ... of a folder.

    Every file is written whole. If the source turns out damaged, the frames before stay.

    Args:
      source: video file.
      folder: where to; it is made if only its last part is missing.
      restore: as for `transcode`.
      overwrite: whether existing frames are replaced. All frames pass through `restore` anyway,
        because a network for video needs the neighbours of the missing ones.

    Returns:
      Number of frames of the video.

    Raises:
      InputError: the source cannot be read, or the folder cannot be written to.
      ValueError: `restore` gave a wrong number of frames, or one of a wrong size or type.
    """
    from PIL import Image

    folder = Path(folder)
    _check_folder(folder if folder.exists() else folder.parent, folder)
    count = 0
    with _opened(source) as clip, contextlib.closing(_restored(clip, restore)) as frames:
        for image, _, _ in frames:
            path = folder / f"{count:08d}.png"
            count += 1
            if path.exists() and not overwrite:
                continue
            with _blamed(f"{path}: cannot be written"):
                folder.mkdir(exist_ok=True)
                with _replacing(path, overwrite=True) as partial:
                    Image.fromarray(image).save(partial)
    return count


@dataclass(frozen=True)
class _Clip:
    path: Path
    container: InputContainer
    video: VideoStream


@contextlib.contextmanager
def _opened(source: StrPath) -> Iterator[_Clip]:
    import av
    from av.stream import Disposition

    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: {'not a file' if path.exists() else 'does not exist'}")
    if not path.stat().st_size:
        raise InputError(f"{path}: an empty file")
    with _blamed(f"{path}: not a video, or cut short"):
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
        clip = _Clip(path, container, videos[0])
        _check_whole(clip)
        yield clip


def _check_whole(clip: _Clip) -> None:
    """Finds a file that was cut, where its header tells: FFmpeg would just end early."""
    size = clip.path.stat().st_size
    for stream in (clip.video, *clip.container.streams):
        whole = [entry.pos + entry.size <= size for entry in stream.index_entries]
        if not all(whole):
            lost = f"frame {whole.index(False)} on" if stream is clip.video else "some sound on"
            raise InputError(f"{clip.path}: the file is cut short (from {lost})")
    with clip.path.open("rb") as file:
        promised = _promised_size(file.read(4096))
    if size < promised:
        raise InputError(f"{clip.path}: the file is cut short ({size} of {promised} bytes)")


def _promised_size(head: bytes) -> int:
    """Bytes of a Matroska or AVI file according to its beginning; 0 if that does not tell."""
    if head.startswith(b"RIFF"):
        length = int.from_bytes(head[4:8], "little")
        return length if length < 2**32 - 1 else 0
    start = head.find(b"\x18\x53\x80\x67") + 4  # the element that holds all the rest
    if not head.startswith(b"\x1a\x45\xdf\xa3") or not 4 <= start < len(head):
        return 0
    length = 9 - head[start].bit_length()
    unknown = 2 ** (7 * length) - 1
    promised = int.from_bytes(head[start : start + length], "big") & unknown
    return 0 if promised == unknown else start + length + promised


def _decoded(clip: _Clip, copied: _Copied | None = None) -> Iterator[VideoFrame]:
    """Frames in the order of presentation, each with a time stamp after the one before."""
    packets = clip.container.demux()
    used = [clip.video, *(copied.streams if copied else ())]
    number, size, earliest, end = 0, None, None, Fraction(0)
    step = round(1 / ((clip.video.guessed_rate or 25) * (clip.video.time_base or 1)))
    while True:
        with _blamed(f"{clip.path}: damaged at frame {number}"):
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
    if clip.container.format.name in ("matroska,webm", "avi") and end + 1 < promised:
        raise InputError(
            f"{clip.path}: damaged at frame {number} ({float(promised - end):.1f} seconds missing)"
        )


def _rgb_converter(clip: _Clip) -> Callable[[VideoFrame], np.ndarray]:
    """The conversion to RGB by the matrix and range that each frame is tagged with."""
    from av.video.reformatter import VideoReformatter

    reformat, flags = VideoReformatter().reformat, _scaling_flags()

    def convert(frame: VideoFrame) -> np.ndarray:
        with _blamed(f"{clip.path}: its colour matrix {frame.colorspace} is not supported"):
            if frame.format.name.startswith("gray") and frame.color_range == _LIMITED:
                # swscale takes grey for full range whatever its tag: copy it to Y unchanged first.
                frame = reformat(frame, format="yuv420p", dst_color_range=_FULL)
                frame.color_range = _LIMITED
            return reformat(frame, format="rgb24", interpolation=flags).to_ndarray()

    return convert


def _scaling_flags() -> int:
    """Flags of swscale; without exact rounding every pass would darken by a grey level."""
    from av.video.reformatter import Interpolation

    full_chroma = Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    return Interpolation.BICUBIC | full_chroma | Interpolation.ACCURATE_RND


def _restored(
    clip: _Clip, restore: Restore, copied: _Copied | None = None
) -> Generator[tuple[np.ndarray, int, int], None, None]:
    """Restored frames, each with the time stamp and duration (0: unknown) of its source frame."""
    pending: collections.deque[tuple[int, int, tuple[int, ...]]] = collections.deque()

    def feed() -> Generator[np.ndarray, None, None]:
        to_rgb = _rgb_converter(clip)
        for frame in _decoded(clip, copied):
            image = to_rgb(frame)
            pending.append((frame.pts or 0, frame.duration, image.shape))
            yield image

    with contextlib.closing(feed()) as frames:
        for image in restore(frames):
            if not pending:
                raise ValueError("restore returned more frames than it was given")
            stamp, duration, shape = pending.popleft()
            if image.shape != shape or image.dtype != np.uint8:
                raise ValueError(
                    f"restore returned {image.dtype} {list(image.shape)} for uint8 {list(shape)}"
                )
            yield image, stamp, duration
        # Reading on to the end also fetches the sound that follows the last frame.
        if next(frames, None) is not None or pending:
            raise ValueError("restore returned fewer frames than it was given")


@dataclass(frozen=True)
class _Copied:
    """Streams of the source that are copied, and their packets that wait to be written.

    They wait because `restore` may pull frames, and with them packets, from another thread.
    """

    streams: list[Any] = field(default_factory=list)
    waiting: collections.deque[Packet] = field(default_factory=collections.deque)


class _Writer:
    """The target while it is written: the header at once, then frames and copied packets.

    Args:
      clip: the source.
      target: what to call it in messages.
      partial: where it is written; the container is that of its suffix.
      quality: x264's constant rate factor.
    """

    def __init__(self, clip: _Clip, target: Path, partial: Path, quality: int):
        import av
        from av.video.reformatter import VideoReformatter

        self.copied = _Copied()
        self._target = target
        self._reformat, self._flags = VideoReformatter().reformat, _scaling_flags()
        self._time_base = clip.video.time_base or Fraction(1, 1000)
        self._duration = clip.video.duration
        self._start: int | None = None
        self._end = 0
        self._first_dts: int | None = None
        self._output = av.open(
            os.path.abspath(partial),
            "w",
            format=_MUXERS[target.suffix.lower()],
            container_options=_muxer_options(clip),
            metadata_errors="surrogateescape",
        )
        self._stream = self._output.add_stream("libx264", rate=clip.video.average_rate or 25)
        _copy_tags(clip.video, self._stream)
        self._copies = {}
        self._add_copies(clip)
        self._output.metadata.update(_lasting(clip.container.metadata))
        self._output.set_chapters(clip.container.chapters())
        with _opened(clip.path) as again:  # this one is not read yet: it starts with a frame
            first = next(_decoded(again))
        self._configure(clip, first, quality)
        with _blamed(f"{target}: cannot be written"):
            self._output.start_encoding()

    def _add_copies(self, clip: _Clip) -> None:
        for stream in (*clip.container.streams.audio, *clip.container.streams.subtitles):
            try:
                copy = self._output.add_stream_from_template(stream)
            except ValueError:
                codec = stream.codec_context.name if stream.codec_context else "unknown"
                what = f"{stream.type} stream {stream.index} ({codec})"
                if stream.codec_context and stream.type == "audio":
                    raise InputError(
                        f"{self._target}: a {self._target.suffix} cannot hold {what} of "
                        f"{clip.path}; {', '.join(_holding(codec)) or 'no other'} can"
                    ) from None
                _log.warning("%s: left out, without its %s", self._target, what)
                continue
            _copy_tags(stream, copy)
            self._copies[stream.index] = copy
            self.copied.streams.append(stream)

    def _configure(self, clip: _Clip, first: VideoFrame, quality: int) -> None:
        from av.sidedata.sidedata import Type

        context = self._stream.codec_context
        context.width, context.height = first.width, first.height
        # 4:2:0 needs even sizes; 4:4:4, which the High 4:4:4 profile has, keeps odd ones.
        context.pix_fmt = "yuv444p" if first.width % 2 or first.height % 2 else "yuv420p"
        context.time_base = self._stream.time_base = self._time_base
        context.sample_aspect_ratio = clip.video.sample_aspect_ratio or Fraction(0)
        context.thread_type = "AUTO"  # PyAV's own choice, slices, costs quality
        context.options = {"preset": "medium", "crf": str(quality)}
        # Tags of RGB sources would be wrong for the YUV that is written.
        rgb = first.format.is_rgb
        full = first.format.name.startswith("yuvj")
        context.colorspace = _BT709 if rgb else first.colorspace
        context.color_range = _LIMITED if rgb else _FULL if full else first.color_range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        side_data: Any = first.side_data
        if matrix := side_data.get(Type.DISPLAYMATRIX):
            self._stream.set_display_matrix(np.frombuffer(matrix, np.int32).tolist())

    def write(self, image: np.ndarray, stamp: int, duration: int) -> None:
        """Encodes a frame and writes the packets that are due."""
        from av import VideoFrame

        context = self._stream.codec_context
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        rgb.colorspace, rgb.color_range = context.colorspace, context.color_range
        frame = self._reformat(rgb, format=context.pix_fmt, interpolation=self._flags)
        frame.color_primaries, frame.color_trc = context.color_primaries, context.color_trc
        frame.pts, frame.time_base = stamp, self._time_base
        self._start = stamp if self._start is None else self._start
        self._end = stamp + duration
        with _blamed(f"{self._target}: cannot be written"):
            self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Writes what is left, the index included; errors of the disk show here at the latest."""
        with _blamed(f"{self._target}: cannot be written"):
            packets = self._stream.encode(None)
            if packets:
                # MP4 takes the end of the last packet to be decoded for that of the video.
                first = packets[0].dts if self._first_dts is None else self._first_dts
                length = self._duration or self._end - (self._start or 0)
                rest = length - ((packets[-1].dts or 0) - (first or 0))
                packets[-1].duration = rest if rest > 0 else packets[-1].duration
            self._mux(packets)
            self._output.close()

    def close(self) -> None:
        """Lets go of the file, finished or not."""
        with contextlib.suppress(Exception):
            self._output.close()

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        while self.copied.waiting:
            packet = self.copied.waiting.popleft()
            packet.stream = self._copies[packet.stream.index]
            self._output.mux(packet)
        if packets and self._first_dts is None:
            self._first_dts = packets[0].dts
        self._output.mux(packets)


def _holding(codec: str) -> list[str]:
    """The suffixes whose containers take a codec."""
    import av

    outputs = {suffix: av.open(os.devnull, "w", format=name) for suffix, name in _MUXERS.items()}
    return [suffix for suffix, output in outputs.items() if codec in output.supported_codecs]


def _muxer_options(clip: _Clip) -> dict[str, str]:
    """Options of the MP4 muxer; others ignore them."""
    options = {}
    # Movie time, in which the offset of each stream is told, is otherwise in milliseconds.
    bases = [stream.time_base for stream in clip.container.streams if stream.time_base]
    ticks = math.lcm(*(base.denominator for base in bases))
    if ticks < 2**31:
        options["movie_timescale"] = str(ticks)
    # Telephones' own tags, such as the place, have dotted names, which only this scheme holds.
    if any("." in key for key in clip.container.metadata):
        options["movflags"] = "use_metadata_tags"
    return options


def _copy_tags(source: Any, copy: Any) -> None:
    copy.disposition = source.disposition
    copy.metadata.update(_lasting(source.metadata))


def _lasting(tags: dict[str, str]) -> dict[str, str]:
    """Tags that stay true of the copy."""
    return {
        key: value
        for key, value in tags.items()
        if key.lower() not in _STALE_TAGS and not key.lower().startswith(_STALE_STARTS)
    }


def _check_folder(folder: Path, target: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{target}: {folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{target}: no permission to write to {folder}")


@contextlib.contextmanager
def _replacing(target: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden path beside the target that becomes the target, or is removed after any error."""
    _check_free(target, overwrite)
    partial = target.with_name(f".{uuid.uuid4().hex}.partial{target.suffix}")
    try:
        yield partial
        _check_free(target, overwrite)
        with _blamed(f"{target}: cannot be written"):
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _check_free(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise InputError(f"{target}: is a folder")
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already; give another name or overwrite it")


@contextlib.contextmanager
def _blamed(message: str) -> Iterator[None]:
    """Turns an error of FFmpeg or the file system into an `InputError` with the message."""
    from av.error import FFmpegError

    try:
        yield
    except (FFmpegError, OSError) as error:
        raise InputError(f"{message} ({error.strerror or error})") from error
