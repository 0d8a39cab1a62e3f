"""Scenes that a camera takes, against OpenCV and by hand."""

import cv2
import numpy as np
import pytest
from skimage import data

from jaxdeblur.data import degrade, scenes
from jaxdeblur.errors import InputError

MARGIN = scenes.MARGIN


def rng(seed=0):
    return np.random.default_rng(seed)


def photo(size=64):
    return data.astronaut()[: size + 2 * MARGIN, : size + 2 * MARGIN]


def inside(image):
    return image[MARGIN:-MARGIN, MARGIN:-MARGIN]


def scene(**shares):
    """One kind of picture alone, and nothing else done to it."""
    none = {"still_share": 0.0, "gaussian_share": 0.0, "defocus_share": 0.0}
    rest = {"drawn_share": 0.0, "spoiled_share": 0.0}
    return scenes.Scene(**{**none, **rest, **shares})


@pytest.mark.parametrize("kernel", ["gaussian", "motion"])
def test_convolution_is_opencvs(kernel):
    light = photo().astype(np.float32)
    if kernel == "gaussian":
        kernel = degrade.gaussian_kernel(2.0, 1.0, 0.3)
    else:
        kernel = scenes.random_motion(scene(), rng(3))
    # OpenCV correlates.
    expected = cv2.filter2D(light, -1, kernel[::-1, ::-1].copy(), borderType=cv2.BORDER_CONSTANT)
    np.testing.assert_allclose(scenes.convolve(light, kernel), inside(expected), atol=1e-2)


def test_what_needs_no_restoring_stays_as_it_is_with_its_noise():
    image = photo()
    for spoiled in (0.0, 1.0):
        kind = scene(still_share=1.0, spoiled_share=spoiled)
        for seed in range(8):
            blurred, sharp = scenes.take(image, rng(seed), kind)
            np.testing.assert_array_equal(blurred, sharp)
            assert not spoiled or np.abs(sharp - inside(image).astype(int)).max() > 0


@pytest.mark.parametrize("kind", [scene(), scene(gaussian_share=1.0), scene(defocus_share=1.0)])
def test_blurred_pictures_have_less_detail_than_their_sharp_ones(kind):
    less = 0
    for seed in range(20):
        blurred, sharp = scenes.take(photo(), rng(seed), kind)
        assert blurred.shape == sharp.shape == (64, 64, 3)
        assert blurred.dtype == sharp.dtype == np.uint8
        less += cv2.Laplacian(blurred, cv2.CV_64F).std() < cv2.Laplacian(sharp, cv2.CV_64F).std()
    assert less >= 18  # some blur is of a fraction of a pixel, and some pictures are sharpened


def test_a_path_starts_from_where_it_is_in_the_middle_of_the_exposure():
    straight = scene(shortest_motion=20.0, longest_motion=20.0)
    for seed in range(10):
        kernel = scenes.random_motion(straight, rng(seed))
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        rows, columns = np.nonzero(kernel > 0)
        reach = np.hypot(rows - MARGIN, columns - MARGIN)
        assert reach.min() <= 3  # of few points, the middle lies between two
        assert 5 < reach.max() < 20


def test_two_things_that_move_apart_are_summed_each_by_itself():
    light = np.full((64 + 2 * MARGIN, 64 + 2 * MARGIN, 3), 0.25, np.float32)
    for seed in range(5):  # of one colour, whatever covers whatever
        exposed, middle = scenes.expose_motion(light, rng(seed), scene(layer_share=1.0))
        np.testing.assert_allclose(exposed, 0.25, atol=1e-3)
        np.testing.assert_allclose(middle, 0.25, atol=1e-5)


def test_a_cover_hides_a_part_with_soft_edges():
    for seed in range(10):
        cover = scenes.random_cover(100, rng(seed))
        assert cover.shape == (100, 100, 1)
        assert (cover.min(), cover.max()) == (0, 1)
        assert 0.1 < cover.mean() < 0.8
        assert ((cover > 0) & (cover < 1)).mean() > 0.005


def test_pictures_are_drawn_with_flat_areas():
    flat = 0
    for seed in range(20):
        drawn = scenes.draw(96, rng(seed)).astype(int)
        assert drawn.shape == (96, 96, 3)
        steps = np.abs(np.diff(drawn, axis=1)).max(-1)
        flat += (steps <= 1).mean() > 0.7
    assert flat >= 18


def test_the_same_seed_takes_the_same_picture():
    blur = scenes.SceneBlur(scenes.Scene())
    first, again, other = (blur(photo(), 0, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["blurred"], again["blurred"])
    np.testing.assert_array_equal(first["sharp"], again["sharp"])
    assert (first["blurred"] != other["blurred"]).any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"still_share": 1.5}, "scene.still_share = 1.5 must be from 0 to 1"),
        ({"gaussian_share": 0.9}, "scene.gaussian_share = 0.9 must be from 0 to 0.8"),
        ({"longest_motion": 200.0}, "scene.longest_motion = 200.0 must be from 1.5 to 96"),
    ],
)
def test_wrong_shares_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        scenes.Scene(**wrong)
