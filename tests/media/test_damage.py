"""Videos that were cut or damaged: one line that names the file, or a right result."""

import random
from pathlib import Path

import numpy as np
import pytest
from video_files import frames, planes_of, write

from jaxdeblur.errors import InputError
from jaxdeblur.media import video
from jaxdeblur.media.coding import wholeness

COUNT = 8
CONTAINERS = {
    ".mp4": ("libx264", "mp4"),
    ".mkv": ("libx264", "matroska"),
    ".webm": ("libvpx-vp9", "webm"),
    ".avi": ("mpeg4", "avi"),
    ".ts": ("libx264", "mpegts"),
    ".mpg": ("mpeg2video", "mpeg"),
    ".flv": ("flv", "flv"),
    ".mxf": ("mpeg2video", "mxf"),
    ".ogv": ("libvpx", "ogv"),
    ".wmv": ("wmv2", "asf"),
}
# The others tell no size and no end: where a whole packet is missing, nobody can know.
TELLING = (".mp4", ".mkv", ".webm", ".avi", ".mxf", ".ogv", ".wmv")


def made(path: Path, suffix: str) -> bytes:
    codec, form = CONTAINERS[suffix]
    return write(path, codec, count=COUNT, form=form, size=(96, 64)).read_bytes()


def outcome(tmp_path: Path, suffix: str, data: bytes) -> list[float] | None:
    """The mean level of each frame of the result; None where one line says what is wrong."""
    source = tmp_path / f"bad{suffix}"
    source.write_bytes(data)
    target = tmp_path / "out" / "out.mkv"
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    message = ""
    try:
        video.transcode(source, target, lambda frames: frames, quality=4)
    except InputError as error:
        message = str(error)
    if not message:
        return [planes_of(frame)[0].mean() for frame in frames(target)]
    assert str(source) in message
    assert "\n" not in message
    assert not list(target.parent.iterdir())
    return None


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_cut_files(tmp_path, suffix, capfd):
    data = made(tmp_path / f"in{suffix}", suffix)
    whole = outcome(tmp_path, suffix, data)
    assert whole is not None
    for twelfth in range(1, 12):
        levels = outcome(tmp_path, suffix, data[: len(data) * twelfth // 12])
        if levels is None:
            continue
        assert all(min(abs(level - other) for other in whole) < 1 for level in levels)
        # A part without frames may be missing, such as the index at the end.
        assert len(levels) == COUNT or suffix not in TELLING
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_changed_bytes_never_end_in_a_traceback_or_half_a_file(tmp_path, suffix, capfd):
    data = made(tmp_path / f"in{suffix}", suffix)
    draw = random.Random(suffix)
    for _ in range(20):
        changed = bytearray(data)
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        outcome(tmp_path, suffix, bytes(changed))
    for _ in range(4):
        changed = bytearray(data)
        start = draw.randrange(len(data) - 100)
        changed[start : start + 100] = bytes(100)
        outcome(tmp_path, suffix, bytes(changed))
    assert capfd.readouterr() == ("", "")


def test_every_changed_bit_of_ogg_is_seen(tmp_path):
    data = made(tmp_path / "in.ogv", ".ogv")
    assert wholeness.fault(tmp_path / "in.ogv") == ""
    draw = random.Random(0)
    for _ in range(50):
        changed = bytearray(data)
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        assert outcome(tmp_path, ".ogv", bytes(changed)) is None


def test_missing_frames_of_short_clips_are_seen(tmp_path):
    """Matroska's demuxer takes the damage for the end of the file."""
    data = made(tmp_path / "in.webm", ".webm")
    third = len(data) // 3
    assert outcome(tmp_path, ".webm", data[:third] + bytes(len(data) - third)) is None


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"RIFF" + (92).to_bytes(4, "little") + b"AVI ", 92),
        (b"RIFF\xff\xff\xff\xffAVI ", 0),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x88", 18),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff", 0),  # of unknown size
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x00", 0),
        (b"\x1a\x45\xdf\xa3", 0),
        (wholeness._MXF_PARTITION + bytes(2), 0),
        (b"\0\0\0\x18ftypisom", 0),
        (b"", 0),
    ],
)
def test_sizes_that_beginnings_promise(head, size):
    assert wholeness.promised_size(head) == size


def test_a_broadcast_of_asf_promises_nothing(tmp_path):
    data = bytearray(made(tmp_path / "in.wmv", ".wmv"))
    assert wholeness.promised_size(bytes(data)) == len(data)
    data[data.index(wholeness._ASF_PROPERTIES) + 88] |= 1
    assert wholeness.promised_size(bytes(data)) == 0


def test_times_of_frames_stay(tmp_path):
    """The tolerance of what is missing is not so small that rounding of times is damage."""
    for rate in (1, 2, 5, 60):
        source = write(tmp_path / f"{rate}.mkv", count=4, rate=rate)
        assert video.transcode(source, tmp_path / f"{rate}.out.mkv", lambda frames: frames) == 4
        times = [float(frame.pts * frame.time_base) for frame in frames(tmp_path / f"{rate}.mkv")]
        assert np.diff(times) == pytest.approx(np.full(3, 1 / rate), abs=0.002)
