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
from jaxdeblur.media.coding import boxes, colours, hdr, left_out
from jaxdeblur.media.coding.decoding import Clip, Copied, blamed, decoded, opened, side_data

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_log = logging.getLogger(__name__)

# Containers that hold H.264 with its time stamps and display rotation, by suffix: FFmpeg's names.
MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".m4v": "mp4"}

# Tags that describe the file or the encoder that wrote it, not what it shows.
_STALE_TAGS = ("encoder", "major_brand", "minor_version", "compatible_brands", "duration", "bps")
_STALE_TAGS += ("alpha_mode",)  # the result is opaque
_STALE_STARTS = ("number_of_", "_statistics_", "bps-", "duration-")

# What the header tells of a stream whose encoder is not its own.
_IN_HEADER = (
    *("width", "height", "pix_fmt"),
    *("colorspace", "color_range", "color_primaries", "color_trc"),
)


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

        self.copied = Copied()
        self._target = target
        self._time_base = clip.video.time_base or Fraction(1, 1000)
        self._duration = clip.video.duration
        self._start: int | None = None
        self._end = 0
        self._first_dts: int | None = None
        self._partial, self._described = partial, boxes.describing(clip.video)
        self._output = av.open(
            os.path.abspath(partial),
            "w",
            format=MUXERS[target.suffix.lower()],
            container_options=_muxer_options(clip),
            metadata_errors="surrogateescape",
        )
        with opened(clip.path) as again:  # this one is not read yet: it starts with a frame
            first = next(decoded(again))
        self._stream, self._encoder = self._add_video(clip, first)
        _copy_tags(clip.video, self._stream)
        self._copies = {}
        self._add_copies(clip)
        self._output.metadata.update(_lasting(clip.container.metadata))
        self._output.set_chapters(clip.container.chapters())
        self._configure(clip, first, quality)
        self._to_yuv = colours.to_yuv(self._encoder.pix_fmt or "")
        left_out.tell_streams(clip, self._copies)
        left_out.tell_description(side_data(first), self._described)
        with blamed(f"{target}: cannot be written"):
            self._start_encoding()

    @property
    def _is_matroska(self) -> bool:
        return self._output.format.name == "matroska"

    def _add_video(self, clip: Clip, first: VideoFrame) -> tuple[VideoStream, VideoCodecContext]:
        """Adds the stream; one that has a pattern has an encoder of its own."""
        import av
        from av.codec.context import Flags

        rate = clip.video.average_rate or Fraction(25)
        if not (self._described and self._is_matroska):
            stream = self._output.add_stream("libx264", rate=rate)
            return stream, stream.codec_context
        with av.open(boxes.h264_header(self._described, first.width, first.height)) as pattern:
            stream = self._output.add_stream_from_template(pattern.streams.video[0], opaque=True)
        encoder = av.CodecContext.create("libx264", "w")
        encoder.framerate = stream.codec_context.framerate = rate
        encoder.flags |= Flags.global_header
        return stream, encoder

    def _add_copies(self, clip: Clip) -> None:
        streams = clip.container.streams
        attachments = streams.attachments if self._is_matroska else ()
        for stream in (*streams.audio, *streams.subtitles, *attachments):
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
        context, carried = self._encoder, side_data(first)
        context.width, context.height = first.width, first.height
        context.pix_fmt = colours.pix_fmt_of_result(first)
        context.time_base = self._stream.time_base = self._time_base
        context.sample_aspect_ratio = clip.video.sample_aspect_ratio or Fraction(0)
        context.thread_type = "AUTO"  # PyAV's own choice, slices, costs quality
        context.options = {"preset": "medium", "crf": str(quality)}
        if params := hdr.x264_params(carried):
            context.options["x264-params"] = params
        # Tags of RGB sources would be wrong for the YUV that is written.
        rgb = first.format.is_rgb
        full = first.format.name.startswith("yuvj")
        context.colorspace = colours.BT709 if rgb else first.colorspace
        context.color_range = (
            colours.LIMITED if rgb else colours.FULL if full else first.color_range
        )
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        if matrix := carried.get("DISPLAYMATRIX"):
            self._stream.set_display_matrix(np.frombuffer(matrix, np.int32).tolist())
        elif first.rotation:
            self._stream.set_display_rotation(first.rotation)

    def _start_encoding(self) -> None:
        header, encoder = self._stream.codec_context, self._encoder
        if header is not encoder:
            encoder.open()
            header.extradata = encoder.extradata
            for what in _IN_HEADER:
                setattr(header, what, getattr(encoder, what))
            header.sample_aspect_ratio = encoder.sample_aspect_ratio or Fraction(0)
        self._output.start_encoding()

    def write(self, rgb: VideoFrame) -> None:
        """Encodes a frame and writes the packets that are due."""
        encoder = self._encoder
        rgb.colorspace, rgb.color_range = encoder.colorspace, encoder.color_range
        frame = self._to_yuv(rgb)
        frame.color_primaries, frame.color_trc = encoder.color_primaries, encoder.color_trc
        frame.pts, frame.time_base = rgb.pts, self._time_base
        frame.pict_type = 0  # the source's would be taken for an order
        stamp = rgb.pts or 0
        self._start = stamp if self._start is None else self._start
        self._end = stamp + rgb.duration
        with blamed(f"{self._target}: cannot be written"):
            self._mux(encoder.encode(frame))

    def finish(self) -> None:
        """Writes what is left, the index included; errors of the disk show here at the latest."""
        with blamed(f"{self._target}: cannot be written"):
            packets = self._encoder.encode(None)
            if packets:
                # MP4 takes the end of the last packet to be decoded for that of the video.
                first = packets[0].dts if self._first_dts is None else self._first_dts
                length = self._duration or self._end - (self._start or 0)
                rest = length - ((packets[-1].dts or 0) - (first or 0))
                packets[-1].duration = rest if rest > 0 else packets[-1].duration
            self._mux(packets)
            self._output.close()
            if self._described and not self._is_matroska:
                boxes.insert(self._partial, self._described)

    def close(self) -> None:
        """Lets go of the file, finished or not."""
        with contextlib.suppress(Exception):
            self._output.close()

    def _mux(self, packets: list[Packet[Any]]) -> None:
        while self.copied.waiting:
            packet = self.copied.waiting.popleft()
            packet.stream = self._copies[packet.stream.index]
            self._output.mux(packet)
        if packets and self._first_dts is None:
            self._first_dts = packets[0].dts
        for packet in packets:
            packet.stream = self._stream
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
