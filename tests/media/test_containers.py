"""Every container that videos come in, made by FFmpeg, and files under names of other kinds."""

import shutil

import av
import numpy as np
import pytest
from PIL import Image
from video_files import frames, planes_of, write

from jaxdeblur.errors import InputError
from jaxdeblur.media import files, sniffing, video

# Codec and FFmpeg's muxer, by suffix. Nothing here encodes Theora, so Ogg has VP8.
CONTAINERS = {
    ".mp4": ("libx264", "mp4"),
    ".m4v": ("libx264", "mp4"),
    ".mov": ("mpeg4", "mov"),
    ".mkv": ("libx264", "matroska"),
    ".webm": ("libvpx-vp9", "webm"),
    ".avi": ("mpeg4", "avi"),
    ".mpg": ("mpeg1video", "mpeg"),
    ".mpeg": ("mpeg2video", "mpeg"),
    ".ts": ("libx264", "mpegts"),
    ".wmv": ("wmv2", "asf"),
    ".flv": ("flv", "flv"),
    ".3gp": ("mpeg4", "3gp"),
    ".3g2": ("libx264", "3g2"),
    ".mts": ("libx264", "mpegts"),
    ".m2ts": ("libx264", "mpegts"),
    ".m2t": ("mpeg2video", "mpegts"),
    ".m2v": ("mpeg2video", "mpeg2video"),
    ".vob": ("mpeg2video", "vob"),
    ".asf": ("wmv2", "asf"),
    ".mxf": ("mpeg2video", "mxf"),
    ".ogv": ("libvpx", "ogv"),
    ".f4v": ("libx264", "f4v"),
}
COUNT = 8


def identity(frames):
    return frames


def made(path, suffix):
    codec, form = CONTAINERS[suffix]
    return write(path, codec, count=COUNT, form=form, size=(96, 64))


def levels(path) -> list[float]:
    return [planes_of(frame)[0].mean() for frame in frames(path)]


def job_of(*inputs):
    jobs, problems = files.find([str(path) for path in inputs], None)
    assert not problems
    return jobs[0] if len(jobs) == 1 else jobs


def test_all_suffixes_are_tried():
    assert set(CONTAINERS) == set(video.SUFFIXES)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_video_of_each_suffix_gives_its_frames_in_a_container_that_holds_them(tmp_path, suffix):
    source = made(tmp_path / f"in{suffix}", suffix)
    assert sniffing.is_video(sniffing.head_of(source))
    job = job_of(source)
    assert job.is_video
    assert job.target.suffix in (suffix, ".mkv")
    assert len(list(video.read_frames(source))) == COUNT
    assert video.transcode(source, job.target, identity, quality=4) == COUNT
    with av.open(str(job.target)) as container:
        expected = {".mkv": "matroska,webm"}.get(job.target.suffix, "mov,mp4,m4a,3gp,3g2,mj2")
        assert container.format.name == expected
        assert container.streams.video[0].codec_context.name == "h264"
    assert levels(job.target) == pytest.approx(levels(source), abs=1)
    times = [float(frame.pts * frame.time_base) for frame in frames(job.target)]
    assert np.diff(times) == pytest.approx(np.full(COUNT - 1, 0.04), abs=0.0011)


@pytest.mark.parametrize(
    ("suffix", "name", "target"),
    [
        (".mkv", "in.mp4", "in.deblurred.mp4"),
        (".mp4", "in.avi", "in.deblurred.mkv"),
        (".mp4", "in.jpg", "in.deblurred.mkv"),
        (".webm", "in.png", "in.deblurred.mkv"),
        (".avi", "in.mov", "in.deblurred.mov"),
        (".mpg", "in.dat", "in.deblurred.mkv"),
        (".ts", "in.bin", "in.deblurred.mkv"),
        (".wmv", "in", "in.deblurred.mkv"),
        (".mxf", "in", "in.deblurred.mkv"),
    ],
)
def test_content_decides_not_the_name(tmp_path, suffix, name, target):
    source = made(tmp_path / "made", suffix).rename(tmp_path / name)
    job = job_of(source)
    assert job.is_video
    assert job.target.name == target
    assert video.transcode(source, job.target, identity) == COUNT


def test_in_folders_names_choose_what_is_looked_at(tmp_path):
    for name in ("a.dat", "b.mp4", "c"):
        made(tmp_path / "made", ".mp4").rename(tmp_path / name)
    assert [job.source.name for job in [job_of(tmp_path)]] == ["b.mp4"]


def pillow_file(path, form):
    Image.fromarray(np.full((64, 64, 3), 99, np.uint8)).save(path, form)
    return path


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF"])
def test_a_photograph_named_as_a_video_is_one_clear_line(tmp_path, form):
    if form not in Image.registered_extensions().values():
        Image.init()
    source = pillow_file(tmp_path / "photo.mp4", form)
    assert not sniffing.is_video(sniffing.head_of(source))
    with pytest.raises(InputError, match=r"photo\.mp4: a photograph, not a video") as caught:
        video.transcode(source, tmp_path / "out.mp4", identity)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.mp4"]


def test_heic_is_a_photograph_whatever_its_name(tmp_path, shared_data):
    original = shared_data / "cases" / "DSC0001.HIF"
    if not original.is_file():
        pytest.skip(f"no {original}")
    shutil.copy(original, tmp_path / "DSC0001.mp4")
    shutil.copy(original, tmp_path / "DSC0001.HIF")
    assert not job_of(tmp_path / "DSC0001.HIF").is_video
    with pytest.raises(InputError, match="a photograph, not a video"):
        next(video.read_frames(tmp_path / "DSC0001.mp4"))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", False),
        (b"\0\0\0\x18ftypXXXX\0\0\0\0mif1avif", False),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", False),
        (b"\0\0\0\x14ftypqt  \0\0\x02\0qt  ", True),
        (b"\0\0\0\x1cftypmp42\0\0\0\0mp42isommif1", True),
        (b"RIFF\0\0\0\0WEBPVP8 ", False),
        (b"RIFF\0\0\0\0AVI LIST", True),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", False),
        (b"G" + bytes(187) + b"G" + bytes(187) + b"G" + bytes(187), True),
        (b"GIF89a" + bytes(1018), False),
        (b"G", False),
        (b"", False),
    ],
)
def test_first_bytes(head, expected):
    assert sniffing.is_video(head) is expected


def test_what_cannot_be_read_has_no_first_bytes(tmp_path):
    assert sniffing.head_of(tmp_path / "missing") == b""
    assert sniffing.head_of(tmp_path) == b""
    assert sniffing.head_of(tmp_path / "a\0b") == b""
