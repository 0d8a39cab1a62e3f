"""Colours against the formulas of BT.601, BT.709 and BT.2020."""

import cv2
import numpy as np
import pytest
from video_files import frame_of, frames, planes_of, to_yuv, write

from jaxdeblur.media import video
from jaxdeblur.media.coding import colours


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A smooth picture of many colours, RGB `[H, W, 3]`."""
    knots = np.random.default_rng(0).uniform(30, 225, (15, 20, 3))
    return np.clip(cv2.resize(knots, (320, 240), interpolation=cv2.INTER_CUBIC), 10, 245)


def reduced(plane: np.ndarray, pix_fmt: str) -> np.ndarray:
    """Chroma of 4:4:4 as `pix_fmt` has it, with its samples above the even columns."""
    if "444" in pix_fmt:
        return plane
    wide = np.pad(plane, ((0, 0), (1, 1)), "edge")
    plane = (wide[:, 0:-2:2] + 2 * wide[:, 1:-1:2] + wide[:, 2::2]) / 4
    return plane if "422" in pix_fmt else (plane[0::2] + plane[1::2]) / 2


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_there_and_back_is_the_same_on_average(picture, matrix, full, pix_fmt):
    y, u, v = to_yuv(picture, matrix, full)
    before = frame_of([y, reduced(u, pix_fmt), reduced(v, pix_fmt)], pix_fmt, matrix, 1 + full)
    rgb = colours.to_rgb()(before)
    image = rgb.to_ndarray()
    rgb.colorspace, rgb.color_range = matrix, 1 + full
    after = colours.to_yuv(pix_fmt)(rgb)
    by_hand = to_yuv(image, matrix, full)
    for index, (old, new) in enumerate(zip(planes_of(before), planes_of(after), strict=True)):
        assert abs((new - old).mean()) < 0.05
        assert np.abs(new - old).max() <= (1 if index == 0 or pix_fmt == "yuv444p" else 3)
        expected = by_hand[index] if index == 0 else reduced(by_hand[index], pix_fmt)
        assert abs((new - expected).mean()) < 0.05
        if index == 0 or pix_fmt == "yuv444p":
            assert np.abs(new - expected).max() < 0.6
    if pix_fmt == "yuv444p":
        assert np.abs(image - picture).max() < 3  # the steps of Cb are 1.8 to 2.1 levels of blue
        assert abs((image - picture).mean()) < 0.05


@pytest.mark.parametrize("level", [1, 16, 100, 127, 128, 129, 200, 255])
def test_chroma_of_full_range_is_rounded_to_the_nearest(level):
    before = frame_of([np.full((16, 16), 128.0), *[np.full((16, 16), level)] * 2], "yuvj444p", 1, 2)
    rgb = colours.to_rgb()(before)
    rgb.colorspace, rgb.color_range = 1, 2
    after = colours.to_yuv("yuv444p")(rgb)
    for new, expected in zip(planes_of(after), to_yuv(rgb.to_ndarray(), 1, True), strict=True):
        assert np.abs(new - expected).max() < 0.52


@pytest.mark.parametrize(
    ("pix_fmt", "expected"),
    [
        *(("yuv420p", "yuv420p"), ("nv12", "yuv420p"), ("yuvj420p", "yuv420p")),
        *(("yuv422p", "yuv422p"), ("yuyv422", "yuv422p"), ("yuv422p10le", "yuv422p")),
        *(("yuv444p", "yuv444p"), ("yuva444p10le", "yuv444p"), ("yuv440p", "yuv444p")),
        *(("yuv411p", "yuv422p"), ("yuv410p", "yuv420p"), ("gray", "yuv420p")),
        *(("rgb24", "yuv444p"), ("gbrp", "yuv444p"), ("bgra", "yuv444p"), ("pal8", "yuv444p")),
        *(("ya8", "yuv420p"), ("p010le", "yuv420p")),
    ],
)
def test_the_resolution_of_colour_is_kept(pix_fmt, expected):
    import av

    assert colours.pix_fmt_of_result(av.VideoFrame(64, 48, pix_fmt)) == expected


@pytest.mark.parametrize(
    ("size", "pix_fmt", "expected"),
    [
        ((63, 48), "yuv420p", "yuv444p"),
        ((64, 47), "yuv420p", "yuv444p"),
        ((64, 47), "yuv422p", "yuv422p"),
        ((63, 48), "yuv422p", "yuv444p"),
    ],
)
def test_odd_sizes_get_a_format_that_has_them(size, pix_fmt, expected):
    import av

    assert colours.pix_fmt_of_result(av.VideoFrame(*size, pix_fmt)) == expected


@pytest.mark.parametrize(
    ("pix_fmt", "profile"),
    [
        ("yuv420p", "High"),
        ("yuv422p", "High 4:2:2"),
        ("yuv444p", "High 4:4:4 Predictive"),
        ("bgr0", "High 4:4:4 Predictive"),
    ],
)
def test_results_have_the_profile_of_their_format(tmp_path, pix_fmt, profile):
    import av

    source = write(tmp_path / "in.mkv", "ffv1", pix_fmt)
    target = tmp_path / "out.mp4"
    video.transcode(source, target, lambda frames: frames, quality=4)
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.profile == profile
    for old, new in zip(frames(source), frames(target), strict=True):
        assert new.to_ndarray(format="rgb24").mean(axis=(0, 1)) == pytest.approx(
            old.to_ndarray(format="rgb24").mean(axis=(0, 1)), abs=2
        )


def test_full_range_video_keeps_its_colours_through_h264(tmp_path, picture):
    import av

    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    y, u, v = to_yuv(picture, 1, True)
    planes = [y, reduced(u, "yuv420p"), reduced(v, "yuv420p")]
    with av.open(str(source), "w") as output:
        stream = output.add_stream("ffv1", rate=25, width=320, height=240, pix_fmt="yuv420p")
        stream.codec_context.color_range, stream.codec_context.colorspace = 2, 1
        output.mux(stream.encode(frame_of(planes, "yuv420p", 1, 2)))
        output.mux(stream.encode(None))
    video.transcode(source, target, lambda frames: frames, quality=1)
    (before,), (after,) = frames(source), frames(target)
    assert (after.color_range, after.colorspace) == (2, 1)
    for old, new in zip(planes_of(before), planes_of(after), strict=True):
        assert abs((new - old).mean()) < 0.1
