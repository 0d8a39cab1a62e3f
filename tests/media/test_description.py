"""What containers and frames say of the picture, read from the bytes of the results."""

import logging
import struct

import av
import numpy as np
import pytest
from video_files import box, box_in, describe, frames, write

from jaxdeblur.media import lost, video
from jaxdeblur.media.coding import boxes, hdr

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv")
ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")

PROJECTION = box(
    b"proj",
    box(b"prhd", struct.pack(">Iiii", 0, 90 << 16, -(30 << 16), 5 << 16)),
    box(b"equi", struct.pack(">IIIII", 0, 0, 0, 0, 0)),
)
SV3D = box(b"sv3d", box(b"svhd", bytes(4), b"test\0"), PROJECTION)
ST3D = box(b"st3d", struct.pack(">IB", 0, 1))  # the left view above the right one
CLAP = box(b"clap", struct.pack(">8i", 48, 1, 32, 1, 0, 1, 0, 1))  # 48x32 in the middle
MDCV = box(
    b"mdcv",
    struct.pack(
        ">8H2I", 13250, 34500, 7500, 3000, 34000, 16000, 15635, 16450, 10_000_000, 50
    ),
)  # fmt: skip
CLLI = box(b"clli", struct.pack(">2H", 1000, 400))


@pytest.fixture
def described(tmp_path):
    source = write(tmp_path / "in.mp4")
    describe(source, SV3D, ST3D, CLAP, MDCV, CLLI)
    (first, *_) = frames(source)
    assert {"SPHERICAL", "STEREO3D", "MASTERING_DISPLAY_METADATA"} <= names(first)
    return source


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "jaxdeblur")
    return caplog


def identity(frames):
    return frames


def names(frame) -> set[str]:
    return {data.type.name for data in frame.side_data}


def element(data: bytes, identity: str) -> bytes:
    """The content of an element of Matroska, at its only place before the frames."""
    head = data[: data.index(bytes.fromhex("1F43B675"))]
    start = head.index(bytes.fromhex(identity)) + len(identity) // 2
    assert head[start] & 0x80  # a size of one byte
    return head[start + 1 : start + 1 + (head[start] & 0x7F)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
def test_mp4_holds_the_boxes_of_the_source(tmp_path, described, suffix, told):
    target = tmp_path / f"out{suffix}"
    assert video.transcode(described, target, identity) == 4
    entry = box_in(target.read_bytes(), *ENTRY)
    assert box_in(entry, b"sv3d", b"proj", b"prhd") == box_in(PROJECTION, b"proj", b"prhd")
    assert box_in(entry, b"sv3d", b"proj", b"equi") == bytes(20)
    assert box_in(entry, b"st3d") == ST3D[8:]
    assert struct.unpack(">8i", box_in(entry, b"clap"))[:4] == (48, 1, 32, 1)
    assert box_in(entry, b"mdcv") == MDCV[8:]
    assert box_in(entry, b"clli") == CLLI[8:]
    assert not box_in(entry, b"vexu")
    assert box_in(entry, b"avcC")
    assert len(frames(target)) == 4  # the offsets are right still
    assert not told.messages


def test_matroska_holds_the_same_in_its_own_elements(tmp_path, described, told):
    target = tmp_path / "out.mkv"
    assert video.transcode(described, target, identity) == 4
    data = target.read_bytes()
    assert element(data, "7671") == b"\x01"  # equirectangular
    angles = [struct.unpack(">d", element(data, name))[0] for name in ("7673", "7674", "7675")]
    assert angles == pytest.approx([90, -30, 5])
    assert element(data, "53B8") == b"\x03"  # the left view above the right one
    crop = [element(data, name)[-1] for name in ("54BB", "54AA", "54CC", "54DD")]
    assert crop == [8, 8, 8, 8]
    assert int.from_bytes(element(data, "55BC"), "big") == 1000
    assert len(frames(target)) == 4
    # And back to MP4.
    video.transcode(target, tmp_path / "back.mp4", identity)
    entry = box_in((tmp_path / "back.mp4").read_bytes(), *ENTRY)
    assert box_in(entry, b"sv3d", b"proj", b"prhd") == box_in(PROJECTION, b"proj", b"prhd")
    assert box_in(entry, b"st3d") == ST3D[8:]
    assert struct.unpack(">8i", box_in(entry, b"clap"))[:4] == (48, 1, 32, 1)
    assert not told.messages


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_else_is_as_without_a_description(tmp_path, described, suffix):
    plain = write(tmp_path / "plain.mp4")
    results = []
    for source in (described, plain):
        target = tmp_path / f"{source.stem}.out{suffix}"
        video.transcode(source, target, identity)
        with av.open(str(target)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            packets = [
                (packet.pts, packet.dts, packet.duration, packet.is_keyframe)
                for packet in container.demux(stream)
            ]
            results.append(
                [
                    *(stream.average_rate, stream.time_base, stream.duration, stream.frames),
                    *(stream.disposition, context.profile, context.pix_fmt, packets),
                    *(context.width, context.height, context.sample_aspect_ratio),
                ]
            )
    assert results[0] == results[1]


@pytest.mark.parametrize("arrangement", ["left_right", "top_bottom"])
def test_views_of_webm_are_kept(tmp_path, arrangement):
    source = write(tmp_path / "in.webm", "libvpx-vp9", stream_tags={"stereo_mode": arrangement})
    video.transcode(source, tmp_path / "out.mp4", identity)
    entry = box_in((tmp_path / "out.mp4").read_bytes(), *ENTRY)
    assert box_in(entry, b"st3d")[4] == {"top_bottom": 1, "left_right": 2}[arrangement]


def test_a_mapping_that_cannot_be_carried_is_told(told):
    from jaxdeblur.media.coding import left_out

    left_out.tell_description({"SPHERICAL": bytes(36)}, {})
    left_out.tell_description({"STEREO3D": struct.pack("=9i", 8, *[0] * 8)}, {})
    assert told.messages == [lost.LOST["spherical"], lost.LOST["views"]]
    told.clear()
    left_out.tell_description({"SPHERICAL": bytes(36)}, {b"sv3d": b""})
    left_out.tell_description({"STEREO3D": struct.pack("=9i", 1, *[0] * 8)}, {})
    assert not told.messages


def test_no_boxes_of_what_mp4_cannot_hold(tmp_path):
    source = write(tmp_path / "in.avi", "rawvideo", "bgr24")
    with av.open(str(source)) as container:
        assert boxes.describing(container.streams.video[0]) == {}
    assert video.transcode(source, tmp_path / "out.mkv", identity) == 4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_light_of_hdr_is_kept_with_8_bits_which_are_told(tmp_path, suffix, told):
    light = (
        "hdr10=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited:"
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):"
        "max-cll=1000,400:log-level=none"
    )
    source = write(tmp_path / "in.mp4", "libx265", "yuv420p10le", options={"x265-params": light})
    target = tmp_path / f"out{suffix}"
    video.transcode(source, target, identity)
    assert told.messages == [lost.LOST["deep"]]
    (first, *_), (old, *_) = frames(target), frames(source)
    assert (first.color_trc, first.color_primaries, first.colorspace) == (16, 9, 9)
    assert first.format.name == "yuv420p"
    kinds = av.sidedata.sidedata.Type
    for kind in (kinds.MASTERING_DISPLAY_METADATA, kinds.CONTENT_LIGHT_LEVEL):
        before, after = (np.frombuffer(bytes(f.side_data[kind]), np.int32) for f in (old, first))
        assert len(before)
        assert np.array_equal(before, after)


def test_a_display_that_is_half_known_is_not_told_of():
    half = struct.pack("=20i2i", *[1] * 20, 1, 0)
    assert hdr.x264_params({"MASTERING_DISPLAY_METADATA": half}) == ""
    assert hdr.x264_params({"CONTENT_LIGHT_LEVEL": struct.pack("=2I", 9, 8)}) == "cll=9,8"
    assert hdr.x264_params({}) == ""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_shared_cases(tmp_path, shared_data, suffix, told):
    cases = shared_data / "cases"
    if not cases.is_dir():
        pytest.skip(f"no odd files in {cases}")
    seen = {}
    for name in ("eq.mp4", "hdr10.mp4", "alpha.webm"):
        target = tmp_path / f"{name}{suffix}"
        assert video.transcode(cases / name, target, identity) == len(frames(cases / name))
        seen[name] = set().union(*(names(frame) for frame in frames(target)))
    assert "SPHERICAL" in seen["eq.mp4"]
    assert {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"} <= seen["hdr10.mp4"]
    assert told.messages == [lost.LOST["deep"], lost.LOST["transparent_video"]]
    with av.open(str(tmp_path / f"alpha.webm{suffix}")) as container:
        tags = container.streams.video[0].metadata
        assert "alpha_mode" not in {key.lower() for key in tags}
