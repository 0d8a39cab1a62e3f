"""Video files that the test writes itself, with colours computed by the standards' formulas."""

import itertools
import os
import resource
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from jaxdeblur.errors import InputError
from jaxdeblur.media import video

COUNT = 12
# AVColorSpace and the weights of red and blue in it.
WEIGHTS = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


def colour(index: int) -> np.ndarray:
    """RGB of frame `index`; neighbours differ by at least 10 grey levels."""
    index %= 13
    return np.array([40 + 15 * index, 230 - 15 * index, 60 + 10 * index])


def to_yuv(rgb: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    kr, kb = WEIGHTS[matrix]
    r, g, b = np.asarray(rgb, float)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    return np.array([y, u + 128, v + 128] if full else [16 + y * 219 / 255, *(
        128 + np.array([u, v]) * 224 / 255)])  # fmt: skip


def to_rgb(yuv: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    kr, kb = WEIGHTS[matrix]
    y, u, v = np.asarray(yuv, float) - [0 if full else 16, 128, 128]
    if not full:
        y, u, v = y * 255 / 219, u * 255 / 224, v * 255 / 224
    r, b = y + (2 - 2 * kr) * v, y + (2 - 2 * kb) * u
    return np.array([r, (y - kr * r - kb * b) / (1 - kr - kb), b])


def paint(frame, index: int, matrix: int, full: bool) -> None:
    """Fills a frame with its colour, and a slope in Y so that the parts of the picture differ."""
    deep = "10" in frame.format.name
    colours = to_yuv(colour(index), matrix, full)
    for number, plane in enumerate(frame.planes):
        values = np.full(plane.width, colours[number])
        if number == 0:
            values += np.linspace(-8, 8, plane.width)
        rows = np.zeros((plane.height, plane.line_size >> deep), np.uint16 if deep else np.uint8)
        rows[:, : plane.width] = np.rint(values * 4 if deep else values)
        plane.update(rows.tobytes())


def make(
    path: Path,
    *,
    count: int = COUNT,
    size: tuple[int, int] = (64, 48),
    rate: Fraction | int = 25,
    stamps: list[int] | None = None,
    time_base: Fraction = Fraction(1, 12800),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    matrix: int = 2,
    color_range: int = 0,
    aspect: Fraction = Fraction(1),
    rotation: int = 0,
    audio: str | None = "aac",
    options: dict[str, str] | None = None,
    **muxer: str,
) -> Path:
    """Writes numbered frames, and a tone as long as they last."""
    with av.open(str(path), "w", container_options=muxer) as output:
        output.metadata.update(title="Zäh läuft's", creation_time="2021-02-03T04:05:06.000000Z")
        stream = output.add_stream(codec, rate=rate, time_base=time_base, options=options or {})
        context = stream.codec_context
        context.width, context.height = size
        context.pix_fmt, context.time_base = pix_fmt, time_base
        context.colorspace, context.color_range = matrix, color_range
        context.sample_aspect_ratio = aspect
        stream.metadata["language"] = "ita"
        if rotation:
            stream.set_display_rotation(rotation)
        tone = output.add_stream(audio, rate=48000, layout="mono") if audio else None
        if tone:
            tone.metadata["language"] = "fin"
        step = round(1 / (rate * time_base))
        for index in range(count):
            frame = av.VideoFrame(*size, pix_fmt)
            paint(frame, index, matrix, color_range == 2)
            frame.colorspace, frame.color_range = matrix, color_range
            frame.pts = stamps[index] if stamps else index * step
            frame.time_base = time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if tone:
            sound(output, tone, Fraction(count) / rate)
    return path


def sound(output, tone, seconds: Fraction) -> None:
    wave = np.sin(np.arange(int(48000 * seconds)) * 0.06)
    for start in range(0, len(wave), 1024):
        part = wave[None, start : start + 1024]
        if tone.codec_context.format.name == "s16":
            frame = av.AudioFrame.from_ndarray((part * 9999).astype(np.int16), "s16", "mono")
        else:
            frame = av.AudioFrame.from_ndarray(part.astype(np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 48000, start
        output.mux(tone.encode(frame))
    output.mux(tone.encode(None))


def remux(output, *streams) -> None:
    """Copies streams of one or more files."""
    copies = [output.add_stream_from_template(stream, opaque=True) for stream in streams]
    for stream, copy in zip(streams, copies, strict=True):
        for packet in stream.container.demux(stream):
            if packet.size:
                packet.stream = copy
                output.mux(packet)


def identity(frames):
    return frames


def decoded(path: Path) -> list:
    with av.open(str(path)) as container:
        return list(container.decode(container.streams.video[0]))


def times(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in decoded(path)]


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]


def luma(frame) -> np.ndarray:
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width].astype(float)


def planes(frame) -> np.ndarray:
    """Mean Y, U and V of a frame."""
    return np.array(
        [
            np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width].mean()
            for p in frame.planes
        ]
    )


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((first - second) ** 2), 1e-9)))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("clips") / "clip.mp4")


def test_frames_are_read_in_order_with_the_colours_of_the_formulas(clip):
    frames = list(video.read_frames(clip))
    assert len(frames) == video.count_frames(clip) == COUNT
    for index, frame in enumerate(frames):
        assert frame.shape == (48, 64, 3)
        assert frame.dtype == np.uint8
        assert frame.mean(axis=(0, 1)) == pytest.approx(colour(index), abs=2)


def test_another_decoder_sees_the_same_frames(clip):
    capture = cv2.VideoCapture(str(clip))
    for frame in video.read_frames(clip):
        bgr = capture.read()[1]
        assert np.abs(bgr[..., ::-1].astype(int) - frame).max() <= 3
    assert not capture.read()[0]


VARIANTS = {
    "plain": {},
    "uneven": {"stamps": [0, 700, 1100, 2500, 2600, 4000, 4444, 5120, 6000, 6001, 9999, 12800]},
    "uneven, without B-frames": {
        "stamps": [0, 700, 1100, 2500, 2600, 4000, 4444, 5120, 6000, 6001, 9999, 12800],
        "options": {"bf": "0"},
    },
    "slowing": {"stamps": [512 * i + 30 * i * i for i in range(COUNT)], "options": {"bf": "0"}},
    "ntsc": {"rate": Fraction(30000, 1001), "time_base": Fraction(1001, 30000)},
    "late": {"stamps": [17000 + 512 * i for i in range(COUNT)]},
    "odd": {"size": (63, 47), "pix_fmt": "yuv444p"},
    "single": {"count": 1},
    "anamorphic": {"aspect": Fraction(4, 3)},
    "deep": {"pix_fmt": "yuv420p10le"},
    "silent": {"audio": None},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_transcoding_keeps_size_times_rate_and_content(tmp_path, name):
    source = make(tmp_path / "in.mp4", **VARIANTS[name])
    target = tmp_path / "out.mp4"
    assert video.transcode(source, target, identity, quality=10) == len(decoded(source))
    assert times(target) == times(source)
    with av.open(str(source)) as old, av.open(str(target)) as new:
        before, after = old.streams.video[0], new.streams.video[0]
        assert after.codec_context.name == "h264"
        for what in ("average_rate", "frames", "sample_aspect_ratio", "width", "height"):
            assert getattr(after, what) == getattr(before, what), what
    for first, second in zip(decoded(source), decoded(target), strict=True):
        if name != "deep":
            assert psnr(luma(first), luma(second)) > 35
    for index, frame in enumerate(video.read_frames(target)):
        assert frame.mean(axis=(0, 1)) == pytest.approx(colour(index), abs=2.5)
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv", ".MKV"])
@pytest.mark.parametrize("shift", [0, 17001])
def test_sound_is_copied_and_stays_in_step(tmp_path, suffix, shift):
    stamps = [shift + 512 * i for i in range(COUNT)]
    source = make(tmp_path / "in.mp4", stamps=stamps)
    target = tmp_path / f"out{suffix}"
    video.transcode(source, target, identity)
    before, after = packets(source, "audio"), packets(target, "audio")
    assert [data for _, data in after] == [data for _, data in before]
    # Time of each packet after the first frame, in seconds; Matroska counts milliseconds.
    tolerance = 0.0011 if suffix.lower() == ".mkv" else 0
    for (old, _), (new, _) in zip(before, after, strict=True):
        assert float((new - times(target)[0]) - (old - times(source)[0])) == pytest.approx(
            0, abs=tolerance
        )
    for old, new in zip(times(source), times(target), strict=True):
        assert float((new - times(target)[0]) - (old - times(source)[0])) == pytest.approx(
            0, abs=tolerance
        )


@pytest.mark.parametrize(
    ("suffix", "codec", "audio", "ticks"),
    [
        (".mkv", "libx264", "aac", 1000),
        (".ts", "libx264", "aac", 90000),
        (".m2ts", "libx264", "aac", 90000),
        (".flv", "libx264", "aac", 1000),
        (".3gp", "libx264", "aac", 12800),
        (".avi", "mpeg4", "mp2", 25),
        (".mpg", "mpeg2video", "mp2", 25),
        (".wmv", "wmv2", "mp2", 25),
        (".webm", "libvpx-vp9", "libopus", 1000),
    ],
)
def test_other_containers_are_read(tmp_path, suffix, codec, audio, ticks):
    rich = {} if codec == "libx264" else {"b": "4000000"}
    base = Fraction(1, ticks)
    source = make(tmp_path / f"in{suffix}", codec=codec, audio=audio, time_base=base, options=rich)
    target = tmp_path / "out.mp4"
    assert video.transcode(source, target, identity) == COUNT
    assert np.diff(times(target)) == pytest.approx(np.full(COUNT - 1, 0.04), abs=0.0011)
    lag = times(target)[0] - packets(target, "audio")[0][0]
    expected = times(source)[0] - packets(source, "audio")[0][0]
    assert float(lag - expected) == pytest.approx(0, abs=0.0011)
    estimate = video.count_frames(source)
    assert estimate is not None
    assert suffix == ".mpg" or abs(estimate - COUNT) <= 3  # a single pack tells no duration
    for index, frame in enumerate(video.read_frames(target)):
        assert frame.mean(axis=(0, 1)) == pytest.approx(colour(index), abs=4)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_display_rotation_is_kept_and_not_applied(tmp_path, suffix, rotation):
    source = make(tmp_path / "in.mp4", count=2, rotation=rotation)
    target = tmp_path / f"out{suffix}"
    video.transcode(source, target, identity)
    for path in (source, target):
        assert decoded(path)[0].rotation % 360 == rotation % 360
        assert next(video.read_frames(path)).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("matrix", "color_range"), [(1, 1), (5, 1), (1, 2), (5, 2), (9, 1), (2, 0)]
)
def test_colours_and_their_tags_are_kept(tmp_path, matrix, color_range):
    source = make(tmp_path / "in.mp4", matrix=matrix, color_range=color_range, audio=None)
    target = tmp_path / "out.mp4"
    seen = []
    video.transcode(source, target, lambda frames: (seen.append(f) or f for f in frames), quality=4)
    full = color_range == 2
    for index, (old, new) in enumerate(zip(decoded(source), decoded(target), strict=True)):
        assert (new.colorspace, new.color_range) == (old.colorspace, old.color_range)
        assert old.colorspace == matrix
        assert (old.color_range == 2) == full
        assert planes(new) == pytest.approx(planes(old), abs=1)
        # U and V of the source are whole numbers, whose steps are nearly two levels of B.
        assert to_rgb(planes(new), matrix, full) == pytest.approx(colour(index), abs=3)
        assert seen[index].mean(axis=(0, 1)) == pytest.approx(colour(index), abs=1.5)


def test_grey_video_of_limited_range_keeps_its_contrast(tmp_path):
    source = make(tmp_path / "in.mkv", codec="ffv1", pix_fmt="gray", color_range=1, audio=None)
    assert decoded(source)[0].format.name == "gray"
    target = tmp_path / "out.mp4"
    video.transcode(source, target, identity, quality=4)
    for old, new in zip(decoded(source), decoded(target), strict=True):
        assert luma(new).mean() == pytest.approx(luma(old).mean(), abs=1)


def test_lossless_rgb_video_is_tagged_as_the_yuv_it_becomes(tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as output:
        stream = output.add_stream("libx264rgb", rate=25, width=64, height=48, pix_fmt="rgb24")
        for index in range(3):
            image = np.broadcast_to(colour(index).astype(np.uint8), (48, 64, 3))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image.copy(), "rgb24")))
        output.mux(stream.encode(None))
    target = tmp_path / "out.mp4"
    video.transcode(source, target, identity, quality=4)
    for index, frame in enumerate(decoded(target)):
        assert to_rgb(planes(frame), frame.colorspace, False) == pytest.approx(colour(index), abs=2)


def test_titles_dates_and_languages_are_kept(tmp_path, clip):
    for suffix in (".mp4", ".mov", ".mkv"):
        target = tmp_path / f"out{suffix}"
        video.transcode(clip, target, identity)
        with av.open(str(target)) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
            assert tags["title"] == "Zäh läuft's"
            assert tags["creation_time"] == "2021-02-03T04:05:06.000000Z"
            assert container.streams.video[0].language == "ita"
            assert container.streams.audio[0].language == "fin"
            assert "major_brand" not in tags or suffix != ".mkv"


def test_tags_of_telephones_are_kept(tmp_path):
    source, target = tmp_path / "in.mov", tmp_path / "out.mov"
    with av.open(str(source), "w", container_options={"movflags": "use_metadata_tags"}) as output:
        output.metadata.update({"com.apple.quicktime.make": "Pear", "title": "Walk"})
        stream = output.add_stream("libx264", rate=25, width=64, height=48)
        output.mux([*stream.encode(av.VideoFrame(64, 48)), *stream.encode(None)])
    video.transcode(source, target, identity)
    with av.open(str(target)) as container:
        assert container.metadata["com.apple.quicktime.make"] == "Pear"
        assert container.metadata["title"] == "Walk"


def test_tags_in_another_encoding_do_no_harm(tmp_path):
    source = make(tmp_path / "in.mkv", audio=None)
    data = source.read_bytes()
    assert data.count("Zäh läuft's".encode()) == 1
    source.write_bytes(data.replace("Zäh läuft's".encode(), b"Z\xe4h l\xe4uft's  "))
    assert video.transcode(source, tmp_path / "out.mkv", identity) == COUNT
    assert b"Z\xe4h l\xe4uft's" in (tmp_path / "out.mkv").read_bytes()


def test_subtitles_are_copied_where_the_container_takes_them(tmp_path, clip, caplog):
    text = tmp_path / "in.srt"
    text.write_text("1\n00:00:00,080 --> 00:00:00,240\nHello there\n")
    source = tmp_path / "in.mkv"
    with av.open(str(clip)) as old, av.open(str(text)) as words, av.open(str(source), "w") as new:
        remux(new, old.streams.video[0], words.streams.subtitles[0])
    video.transcode(source, tmp_path / "out.mkv", identity)
    assert packets(tmp_path / "out.mkv", "subtitles") == [(Fraction(8, 100), b"Hello there")]
    assert not caplog.records
    video.transcode(source, tmp_path / "out.mp4", identity)
    assert "left out, without its subtitle stream 1 (srt)" in caplog.text
    assert times(tmp_path / "out.mp4") == times(source)


def test_chapters_are_kept(tmp_path, clip):
    source = tmp_path / "in.mkv"
    with av.open(str(clip)) as old, av.open(str(source), "w") as new:
        chapter = {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000)}
        new.set_chapters([{**chapter, "metadata": {"title": "Start"}}])
        remux(new, old.streams.video[0])
    for name, origin in (("out.mkv", source), ("out.mp4", source), ("b.mp4", tmp_path / "out.mp4")):
        video.transcode(origin, tmp_path / name, identity)
        with av.open(str(tmp_path / name)) as container:
            (found,) = container.chapters()
        assert found["metadata"]["title"] == "Start"
        assert found["end"] * found["time_base"] == Fraction(2, 10)


def test_restore_is_applied_to_every_frame_in_order(tmp_path, clip):
    target = tmp_path / "out.mp4"
    taken = []

    def invert(frames):
        for frame in frames:
            taken.append(frame)
            yield 255 - frame

    assert video.transcode(clip, target, invert, quality=4) == COUNT
    for index, frame in enumerate(video.read_frames(target)):
        assert taken[index].mean(axis=(0, 1)) == pytest.approx(colour(index), abs=2)
        assert frame.mean(axis=(0, 1)) == pytest.approx(255 - colour(index), abs=2)


def test_quality_trades_size_for_fidelity(tmp_path, clip):
    sizes = []
    for quality in (0, 18, 51):
        target = tmp_path / f"{quality}.mp4"
        video.transcode(clip, target, identity, quality=quality)
        sizes.append(sum(len(data) for _, data in packets(target, "video")))
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("write", ["transcode", "write_frames"])
def test_few_frames_are_held_at_a_time(tmp_path, write):
    source = make(tmp_path / "in.mp4", count=120, audio=None)
    taken, given, most = [], 0, 0

    def neighbours(frames):  # like a network that needs the next frame too
        nonlocal given, most
        previous = None
        for frame in frames:
            taken.append(weakref.ref(frame))
            most = max(most, sum(reference() is not None for reference in taken))
            assert len(taken) - given <= 2
            if previous is not None:
                given += 1
                yield previous.copy()
            previous = frame
        given += 1
        yield previous

    target = tmp_path / ("out.mp4" if write == "transcode" else "out")
    assert getattr(video, write)(source, target, neighbours) == 120 == len(taken) == given
    assert most <= 4


def test_reading_is_lazy_and_can_stop_early(clip):
    frames = video.read_frames(clip)
    assert next(frames).mean(axis=(0, 1)) == pytest.approx(colour(0), abs=2)
    frames.close()
    assert len(list(itertools.islice(video.read_frames(clip), 3))) == 3


def test_real_clip(tmp_path, shared_data):
    source, target = shared_data / "video" / "bikes.mp4", tmp_path / "out.mp4"
    assert video.count_frames(source) == 250
    assert video.transcode(source, target, identity, quality=10) == 250
    assert times(target) == times(source) == [Fraction(i, 25) for i in range(250)]
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.guessed_rate, stream.frames) == (25, 25, 250)
        assert (stream.width, stream.height) == (640, 272)
    pairs = zip(decoded(source)[::25], decoded(target)[::25], strict=True)
    assert min(psnr(luma(old), luma(new)) for old, new in pairs) > 40


def test_frames_are_written_as_png(tmp_path, clip):
    folder = tmp_path / "frames"
    assert video.write_frames(clip, folder, lambda frames: (255 - f for f in frames)) == COUNT
    assert sorted(os.listdir(folder)) == [f"{index:08d}.png" for index in range(COUNT)]
    for index, frame in enumerate(video.read_frames(clip)):
        stored = cv2.imread(str(folder / f"{index:08d}.png"))
        assert stored is not None
        assert np.array_equal(stored[..., ::-1], 255 - frame)


def test_existing_frames_are_kept_unless_overwritten(tmp_path, clip):
    (tmp_path / "00000003.png").write_text("mine")
    taken = []
    video.write_frames(clip, tmp_path, lambda frames: (taken.append(f) or f for f in frames))
    assert len(taken) == COUNT == len(os.listdir(tmp_path))
    assert (tmp_path / "00000003.png").read_text() == "mine"
    video.write_frames(clip, tmp_path, identity, overwrite=True)
    assert cv2.imread(str(tmp_path / "00000003.png")) is not None
    assert len(os.listdir(tmp_path)) == COUNT


def text_file(folder: Path) -> Path:
    path = folder / "notes.mp4"
    path.write_text("not a video\n" * 999)
    return path


def playlist(folder: Path) -> Path:
    make(folder / "real.mp4", count=2)
    path = folder / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile real.mp4\n")
    with av.open(str(path)) as container:  # FFmpeg would follow it
        assert container.streams.video
    return path


def empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def only_sound(folder: Path) -> Path:
    path = folder / "sound.mp4"
    with av.open(str(path), "w") as output:
        sound(output, output.add_stream("aac", rate=48000, layout="mono"), Fraction(1, 2))
    return path


def sound_with_cover(folder: Path) -> Path:
    path = folder / "cover.mp4"
    with av.open(str(path), "w") as output:
        tone = output.add_stream("aac", rate=48000, layout="mono")
        cover = output.add_stream("png", rate=1, width=32, height=32, pix_fmt="rgb24")
        cover.disposition = av.stream.Disposition.attached_pic
        image = np.full((32, 32, 3), 99, np.uint8)
        output.mux(cover.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        sound(output, tone, Fraction(1, 2))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    return path


BAD = {
    "missing": (lambda folder: folder / "missing.mp4", "does not exist"),
    "folder": (lambda folder: folder, "not a file"),
    "empty": (empty, "empty"),
    "text": (text_file, "not a video"),
    "playlist": (playlist, "not a video"),
    "sound": (only_sound, "no video stream"),
    "cover": (sound_with_cover, "no video stream"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_video_are_named(tmp_path, name, capfd):
    build, reason = BAD[name]
    source = build(tmp_path)
    before = sorted(os.listdir(tmp_path))
    for call in (
        lambda: video.count_frames(source),
        lambda: next(video.read_frames(source)),
        lambda: video.transcode(source, tmp_path / "out.mp4", identity),
        lambda: video.write_frames(source, tmp_path / "out", identity),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            call()
        assert str(source) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before
    assert capfd.readouterr() == ("", "")


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def damage(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(range(256)) * 8 + data[middle + 2048 :]


@pytest.mark.parametrize(
    ("suffix", "spoil", "reason"),
    [
        (".mp4", cut, r"cut short \(from frame (\d+) on\)"),
        (".mkv", cut, r"cut short \((\d+) of \d+ bytes\)"),
        (".avi", cut, r"cut short \((\d+) of \d+ bytes\)"),
        (".mp4", damage, r"damaged at frame (\d+) "),
        (".mkv", damage, r"damaged at frame (\d+) "),
        (".ts", damage, r"damaged at frame (\d+) "),
        (".avi", damage, r"damaged at frame (\d+) "),
    ],
)
def test_damaged_files_stop_with_the_frame_and_leave_nothing(
    tmp_path, suffix, spoil, reason, capfd
):
    form = {"codec": "mpeg4", "time_base": Fraction(1, 25), "options": {"b": "4000000"}}
    # So that the damage lies at the same place of the same file each time.
    form = form if suffix == ".avi" else {"options": {"x264-params": "asm=0"}}
    muxer = {"movflags": "faststart"} if suffix == ".mp4" else {"fflags": "bitexact"}
    source = make(tmp_path / f"in{suffix}", count=120, audio=None, **form, **muxer)
    source.write_bytes(spoil(source.read_bytes()))
    with pytest.raises(InputError, match=reason) as caught:
        video.transcode(source, tmp_path / "out.mp4", identity)
    assert str(source) in str(caught.value)
    assert os.listdir(tmp_path) == [source.name]
    with pytest.raises(InputError, match=reason):
        video.write_frames(source, tmp_path / "out", identity)
    # What was written before the damage is whole.
    names = sorted(os.listdir(tmp_path / "out")) if (tmp_path / "out").exists() else []
    for index, name in enumerate(names):
        stored = cv2.imread(str(tmp_path / "out" / name))
        assert stored is not None
        assert stored[..., ::-1].mean(axis=(0, 1)) == pytest.approx(colour(index), abs=4)
    assert capfd.readouterr() == ("", "")


def test_lost_frames_are_missed_where_the_decoder_just_ends(tmp_path):
    source = make(tmp_path / "in.mkv", count=120, audio=None, cluster_time_limit="1000")
    data = source.read_bytes()
    half = data.index(b"\x1f\x43\xb6\x75", len(data) // 2)  # where a group of frames begins
    source.write_bytes(data[:half] + bytes(len(data) - half))
    assert 0 < len(decoded(source)) < 100
    with pytest.raises(InputError, match=r"damaged at frame \d+"):
        video.transcode(source, tmp_path / "out.mp4", identity)
    assert os.listdir(tmp_path) == ["in.mkv"]


def test_a_file_without_its_end_where_the_index_is(tmp_path, clip):
    source = tmp_path / "in.mp4"
    source.write_bytes(cut(clip.read_bytes()))
    with pytest.raises(InputError, match="not a video, or cut short"):
        video.count_frames(source)


@pytest.mark.parametrize("suffix", [".webm", ".avi", ".gif", ""])
def test_containers_that_do_not_fit_are_refused_at_once(tmp_path, suffix):
    with pytest.raises(InputError, match=r"\.mp4, \.mov, \.mkv") as caught:
        video.transcode(tmp_path / "never read.mp4", tmp_path / f"out{suffix}", identity)
    assert f"out{suffix}" in str(caught.value)


def test_sound_that_does_not_fit_is_refused_before_decoding(tmp_path):
    source = make(tmp_path / "in.mov", audio="pcm_mulaw")
    taken = []
    with pytest.raises(InputError, match=r"a \.mp4 .* stream 1 \(pcm_mulaw\) .*; \.mov can$"):
        video.transcode(source, tmp_path / "out.mp4", lambda f: (taken.append(i) or i for i in f))
    assert not taken
    assert video.transcode(source, tmp_path / "out.mov", identity) == COUNT
    assert sorted(os.listdir(tmp_path)) == ["in.mov", "out.mov"]


@pytest.mark.parametrize("quality", [-1, 52])
def test_quality_outside_its_range_is_refused(tmp_path, clip, quality):
    with pytest.raises(InputError, match=rf"quality = {quality} .*0\.\.51"):
        video.transcode(clip, tmp_path / "out.mp4", identity, quality=quality)


def test_an_existing_target_is_only_replaced_on_request(tmp_path, clip):
    target = tmp_path / "out.mp4"
    target.write_text("mine")
    with pytest.raises(InputError, match="exists; give --overwrite"):
        video.transcode(clip, target, identity)
    assert target.read_text() == "mine"

    def failing(frames):
        yield next(frames)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        video.transcode(clip, target, failing, overwrite=True)
    assert target.read_text() == "mine"
    assert video.transcode(clip, target, identity, overwrite=True) == COUNT
    assert len(decoded(target)) == COUNT
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_target_made_meanwhile_is_not_replaced(tmp_path, clip):
    target = tmp_path / "out.mp4"

    def meddle(frames):
        target.write_text("mine")
        return frames

    with pytest.raises(InputError, match="exists; give --overwrite"):
        video.transcode(clip, target, meddle)
    assert target.read_text() == "mine"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_uneven_times_of_matroska_end_in_mp4_with_the_last_frame(tmp_path):
    stamps = [40 * i + 3 * i * i for i in range(COUNT)]
    time_base = Fraction(1, 1000)
    source = make(tmp_path / "in.mkv", stamps=stamps, time_base=time_base, audio=None)
    target = tmp_path / "out.mp4"
    video.transcode(source, target, identity)
    assert times(target) == [stamp * time_base for stamp in stamps]
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == (stamps[-1] + 40) * time_base


def test_a_file_can_take_its_own_place(tmp_path):
    path = make(tmp_path / "clip.mp4")
    before = times(path)
    assert video.transcode(path, path, identity, overwrite=True) == COUNT
    assert times(path) == before


def test_targets_that_cannot_be_written_are_named(tmp_path, clip):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder.mp4").mkdir()
    for target, reason in (
        (tmp_path / "missing" / "out.mp4", "its folder does not exist"),
        (tmp_path / "file" / "out.mp4", "its folder does not exist"),
        (tmp_path / "folder.mp4", "is not a file"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            video.transcode(clip, target, identity)
        assert str(target) in str(caught.value)
    for folder in (tmp_path / "file", tmp_path / "missing" / "out"):
        with pytest.raises(InputError, match="is not a folder"):
            video.write_frames(clip, folder, identity)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write")
def test_a_folder_that_takes_no_files_is_named(clip):
    with pytest.raises(InputError, match=r"/proc/out\.mp4: "):
        video.transcode(clip, "/proc/out.mp4", identity)
    with pytest.raises(InputError, match=r"/proc/00000000\.png: cannot be written"):
        video.write_frames(clip, "/proc", identity)


@pytest.mark.parametrize("write", ["transcode", "write_frames"])
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, write, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    source = make(tmp_path / "in.mp4", count=60)
    (tmp_path / "out").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    target = tmp_path / "out" / "clip.mp4" if write == "transcode" else tmp_path / "out"
    room = 20_000 if write == "transcode" else 2000
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        with pytest.raises(InputError, match=r"cannot be written \(File too large\)"):
            getattr(video, write)(source, target, lambda frames: (noise for _ in frames))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path / "out") == []
    assert capfd.readouterr() == ("", "")


def interrupt(frames):
    for index, frame in enumerate(frames):
        if index == 5:
            raise KeyboardInterrupt
        yield frame


def stop(frames):
    yield next(frames)
    raise GeneratorExit


@pytest.mark.parametrize(
    ("restore", "error"),
    [
        (lambda frames: itertools.islice(frames, 5), ValueError),
        (lambda frames: itertools.chain.from_iterable((f, f) for f in frames), ValueError),
        (lambda frames: itertools.chain(frames, [np.zeros((48, 64, 3), np.uint8)]), ValueError),
        (lambda frames: list(frames)[:-1], ValueError),
        (lambda frames: (f[:-2] for f in frames), ValueError),
        (lambda frames: (f / 255.0 for f in frames), ValueError),
        (interrupt, KeyboardInterrupt),
        (stop, GeneratorExit),
    ],
)
def test_a_failing_restore_leaves_nothing(tmp_path, clip, restore, error):
    with pytest.raises(error) as caught:
        video.transcode(clip, tmp_path / "out.mp4", restore)
    assert not isinstance(caught.value, InputError)
    assert os.listdir(tmp_path) == []


def test_names_that_look_like_addresses_or_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = make(tmp_path / "-12:30 %03d ü.mp4", count=2, audio=None)
    target = f"http:{'x' * 240}.mp4"
    assert video.transcode(source.name, target, identity) == 2
    assert video.count_frames(target) == 2


def test_a_thread_may_read_ahead(tmp_path, clip):
    """Sound is read with the frames, here by another thread than the one that writes."""
    from concurrent.futures import ThreadPoolExecutor

    def ahead(frames):
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(next, frames, None) for _ in range(3)]
            while (frame := waiting.pop(0).result()) is not None:
                waiting.append(pool.submit(next, frames, None))
                yield frame

    target = tmp_path / "out.mp4"
    assert video.transcode(clip, target, ahead) == COUNT
    assert packets(target, "audio") == packets(clip, "audio")


def test_importing_the_module_loads_no_decoder():
    code = (
        "import sys, jaxdeblur.media.video; sys.exit('av' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
