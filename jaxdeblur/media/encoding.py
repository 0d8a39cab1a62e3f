"""Video files out through PyAV: H.264 with everything else of the source."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdeblur.errors import InputError
from jaxdeblur.media.decoding import (
    FULL,
    LIMITED,
    Clip,
    Copied,
    blamed,
    decoded,
    opened,
    scaling_flags,
)

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.stream import VideoStream

_log = logging.getLogger(__name__)

# Containers that hold H.264 with its time stamps and display rotation, by suffix: FFmpeg's names.
MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".m4v": "mp4"}

# Tags that describe the file or the encoder that wrote it, not what it shows.
_STALE_TAGS = ("encoder", "major_brand", "minor_version", "compatible_brands", "duration", "bps")
_STALE_STARTS = ("number_of_", "_statistics_", "bps-", "duration-")

_BT709 = 1  # AVColorSpace


class Writer:
    """The target while it is written: the header at once, then frames and copied packets.

    Args:
      clip: the source.
      target: what to call it in messages.
      partial: where it is written; the container is that of its suffix.
      quality: x264's constant rate factor.
    """

    def __init__(self, clip: Clip, target: Path, partial: Path, quality: int):
        import av
        from av.video.reformatter import VideoReformatter

        self.copied = Copied()
        self._target = target
        self._reformat, self._flags = VideoReformatter().reformat, scaling_flags()
        self._time_base = clip.video.time_base or Fraction(1, 1000)
        self._duration = clip.video.duration
        self._start: int | None = None
        self._end = 0
        self._first_dts: int | None = None
        self._output = av.open(
            os.path.abspath(partial),
            "w",
            format=MUXERS[target.suffix.lower()],
            container_options=_muxer_options(clip),
            metadata_errors="surrogateescape",
        )
        self._stream = self._output.add_stream("libx264", rate=clip.video.average_rate or 25)
        _copy_tags(clip.video, self._stream)
        self._copies = {}
        self._add_copies(clip)
        self._output.metadata.update(_lasting(clip.container.metadata))
        self._output.set_chapters(clip.container.chapters())
        with opened(clip.path) as again:  # this one is not read yet: it starts with a frame
            first = next(decoded(again))
        self._configure(clip, first, quality)
        with blamed(f"{target}: cannot be written"):
            self._output.start_encoding()

    def _add_copies(self, clip: Clip) -> None:
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

    def _configure(self, clip: Clip, first: VideoFrame, quality: int) -> None:
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
        context.color_range = LIMITED if rgb else FULL if full else first.color_range
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
        with blamed(f"{self._target}: cannot be written"):
            self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Writes what is left, the index included; errors of the disk show here at the latest."""
        with blamed(f"{self._target}: cannot be written"):
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

    outputs = {suffix: av.open(os.devnull, "w", format=name) for suffix, name in MUXERS.items()}
    return [suffix for suffix, output in outputs.items() if codec in output.supported_codecs]


def _muxer_options(clip: Clip) -> dict[str, str]:
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
