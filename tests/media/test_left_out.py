"""What results of videos do not hold is told, once, and only where it is so."""

import logging

import av
import numpy as np
import pytest
from video_files import frames, write

from jaxdeblur.media import lost, video


@pytest.fixture
def transcode(tmp_path, caplog):
    """Restores a file to itself; returns the result and what was told, by the names of losses."""
    caplog.set_level(logging.INFO, "jaxdeblur")

    def run(source, suffix=".mp4"):
        caplog.clear()
        target = tmp_path / f"result{suffix}"
        video.transcode(source, target, lambda frames: frames, overwrite=True)
        names = {sentence: name for name, sentence in lost.LOST.items()}
        return target, [names.get(message, message) for message in caplog.messages]

    return run


def copies(path, sources, extra=None, form=None):
    """A file of the streams of others."""
    with av.open(str(path), "w", format=form) as output:
        opened = [av.open(str(source)) for source in sources]
        streams = [container.streams[0] for container in opened]
        written = [output.add_stream_from_template(stream, opaque=True) for stream in streams]
        if extra:
            extra(output)
        for container, stream, copy in zip(opened, streams, written, strict=True):
            for packet in container.demux(stream):
                if packet.size:
                    packet.stream = copy
                    output.mux(packet)
            container.close()
    return path


def test_nothing_is_told_of_a_plain_video(tmp_path, transcode):
    source = write(tmp_path / "in.mp4")
    for suffix in video.CONTAINERS:
        assert transcode(source, suffix)[1] == []


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "told"),
    [
        ("ffv1", "yuv420p10le", ["deep"]),
        ("ffv1", "gray16le", ["deep"]),
        ("ffv1", "yuva420p", ["transparent_video"]),
        ("ffv1", "yuv444p", []),
        ("ffv1", "bgr0", []),
    ],
)
def test_samples(tmp_path, transcode, codec, pix_fmt, told):
    assert transcode(write(tmp_path / "in.mkv", codec, pix_fmt))[1] == told


def test_opaque_alpha_is_no_loss(tmp_path, transcode):
    source = tmp_path / "in.mov"
    for alpha, told in ((255, []), (254, ["transparent_video"])):
        image = np.full((48, 64, 4), 99, np.uint8)
        image[..., 3] = 255
        image[5, 5, 3] = alpha
        with av.open(str(source), "w") as output:
            stream = output.add_stream("png", rate=25, width=64, height=48, pix_fmt="rgba")
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgba")))
            output.mux(stream.encode(None))
        assert transcode(source)[1] == told


def test_interlaced_video(tmp_path, transcode):
    options = {"flags": "+ildct+ilme"}
    source = write(tmp_path / "in.mpg", "mpeg2video", form="mpeg", options=options)
    assert frames(source)[0].interlaced_frame
    target, told = transcode(source)
    assert told == ["interlaced"]
    assert not frames(target)[0].interlaced_frame


def test_further_videos_covers_and_attachments(tmp_path, transcode):
    one, other = write(tmp_path / "1.mkv"), write(tmp_path / "2.mkv", size=(32, 32))
    source = copies(tmp_path / "two.mkv", [one, other])
    assert transcode(source)[1] == ["other_videos"]
    source = copies(
        tmp_path / "attached.mkv",
        [one],
        lambda output: output.add_attachment("font.ttf", "application/x-truetype-font", b"letters"),
    )
    assert transcode(source)[1] == ["attachments"]
    target, told = transcode(source, ".mkv")
    assert told == []
    with av.open(str(target)) as container:
        (attachment,) = container.streams.attachments
        assert (bytes(attachment.data), attachment.name) == (b"letters", "font.ttf")


def test_covers(tmp_path, transcode):
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as output:
        stream = output.add_stream("libx264", rate=25, width=64, height=48)
        cover = output.add_stream("png", rate=1, width=32, height=32, pix_fmt="rgb24")
        cover.disposition = av.stream.Disposition.attached_pic
        image = np.full((32, 32, 3), 99, np.uint8)
        output.mux(cover.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        output.mux([*stream.encode(av.VideoFrame(64, 48)), *stream.encode(None)])
    assert transcode(source)[1] == ["cover"]


def test_time_codes_are_kept_and_other_data_are_told(tmp_path, transcode):
    source = write(tmp_path / "in.mov", tags={"timecode": "01:02:03:04"})
    with av.open(str(source)) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    for suffix in (".mp4", ".mov", ".mkv"):
        target, told = transcode(source, suffix)
        assert told == []
        with av.open(str(target)) as container:
            tags = {k.lower(): v for k, v in container.streams.video[0].metadata.items()}
            assert tags["timecode"] == "01:02:03:04"
    # The same stream as if it were one of places: FFmpeg takes its kind from the description.
    data = source.read_bytes()
    at = data.rindex(b"tmcd", 0, data.rindex(b"stts"))
    changed = tmp_path / "gps.mov"
    changed.write_bytes(data[:at] + b"gpmd" + data[at + 4 :])
    with av.open(str(changed)) as container:
        assert len(container.streams) == 2
    assert transcode(changed)[1] == ["data"]


def captioned(path):
    """A video with closed captions in its frames: CEA-708 in user data of MPEG-2 pictures."""
    write(path, "mpeg2video", form="mpeg2video", count=3)
    data = path.read_bytes()
    caption = bytes.fromhex("000001b2") + b"GA94" + bytes([3, 0x40 | 1, 0xFF])
    caption += bytes([0xFC, 0x94, 0x2C, 0xFF])
    parts = data.split(bytes.fromhex("00000101"))  # the first slice of each picture
    path.write_bytes((caption + bytes.fromhex("00000101")).join(parts))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_closed_captions_are_kept(tmp_path, transcode, suffix):
    source = captioned(tmp_path / "in.m2v")
    kind = av.sidedata.sidedata.Type.A53_CC
    before = [bytes(frame.side_data[kind]) for frame in frames(source)]
    assert before == [bytes([0xFC, 0x94, 0x2C])] * 3
    target, told = transcode(source, suffix)
    assert told == []
    assert [bytes(frame.side_data[kind]) for frame in frames(target)] == before


def test_losses_of_frames_are_told_for_pictures_too(tmp_path, caplog):
    caplog.set_level(logging.INFO, "jaxdeblur")
    source = write(tmp_path / "in.mkv", "ffv1", "yuv422p10le")
    video.write_frames(source, tmp_path / "out", lambda frames: frames)
    assert caplog.messages == [lost.LOST["deep"]]


def test_side_data_that_pyav_does_not_know_does_no_harm():
    from jaxdeblur.media.coding import decoding

    class Strange:
        @property
        def side_data(self):
            raise ValueError("31 is not a valid Type")

    assert decoding.side_data(Strange()) == {}


def test_the_tag_of_transparent_webm_goes(tmp_path, transcode):
    options = {"auto-alt-ref": "0"}
    tags = {"alpha_mode": "1", "title": "Walk"}
    source = write(
        *(tmp_path / "in.webm", "libvpx-vp9", "yuva420p"), options=options, stream_tags=tags
    )
    target, told = transcode(source, ".mkv")
    assert told == ["transparent_video"]
    with av.open(str(target)) as container:
        tags = container.streams.video[0].metadata
        assert tags["title"] == "Walk"
        assert "alpha_mode" not in {key.lower() for key in tags}
