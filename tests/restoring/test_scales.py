"""Passes over shrunk pictures, against what OpenCV shrinks and known changes."""

import cv2
import numpy as np
import pytest

from jaxdeblur.restoring import scales


def test_coarser_scales_add_what_they_change_enlarged():
    seen = []

    def brighten_small(picture):
        seen.append(picture.shape)
        return picture + (0.1 if picture.shape[-2] < 300 else 0)

    picture = 0.6 * np.random.default_rng(0).random((2, 256, 320, 3), dtype=np.float32)
    restored = scales.restore_scales(brighten_small, picture, (2, 4, 8))
    # 256 / 8 pixels are too few for the last.
    assert seen == [(2, 256, 320, 3), (2, 128, 160, 3), (2, 64, 80, 3)]
    np.testing.assert_allclose(restored, picture + 0.2, atol=1e-5)
    same = scales.restore_scales(lambda picture: picture, picture, (4, 2))
    np.testing.assert_array_equal(same, picture)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_the_pass_at_its_own_size_is_left_out_where_coarser_ones_change_more(dtype):
    def brighten(pictures):
        if pictures.shape[-2] < 100:
            return pictures + 0.1
        by = np.where(pictures.mean((-3, -2, -1), keepdims=True) < 100 * one / 255, 0.2, 0.04)
        return (pictures + one * by).astype(dtype)

    one = 1 if dtype == np.float32 else 255
    dark, light = np.full((128, 130, 3), 0.2 * one, dtype), np.full((128, 130, 3), 0.6 * one, dtype)
    for pictures, expected in (
        (dark, 0.2 + 0.2 + 0.1),
        (light, 0.6 + 0.1),
        (np.stack([light, dark, light]), np.reshape([0.7, 0.5, 0.7], (3, 1, 1, 1))),
        (np.stack([light, light]), 0.7),
    ):
        before = pictures.copy()
        restored = scales.restore_scales(brighten, pictures, (2,))
        np.testing.assert_array_equal(pictures, before)
        assert (restored.shape, restored.dtype) == (pictures.shape, dtype)
        np.testing.assert_allclose(restored / one, expected + 0 * before, atol=1.1 / 255)


def test_a_picture_with_holes_is_restored_at_its_own_size_first():
    picture = np.full((128, 128, 3), 0.5, np.float32)
    picture[3, 5] = np.nan
    restored = scales.restore_scales(lambda x: x + 0.1, picture, (2,))
    np.testing.assert_allclose(restored[64:], 0.7, atol=1e-5)


def test_coarser_scales_shrink_without_aliasing_and_enlarge_smoothly():
    rows, columns = np.mgrid[:256, :384].astype(np.float32)
    ramp = np.stack([columns / 600, rows / 400, 0 * rows + 0.3], axis=-1)
    stripes = 0.25 * (columns[..., None] % 2)  # of one pixel: grey, where the picture is shrunk

    def halve_contrast(picture):
        if picture.shape[0] == 256:
            return picture
        inside = slice(4, -4), slice(4, -4)
        expected = cv2.resize(ramp, (96, 64), interpolation=cv2.INTER_AREA) + 0.125
        np.testing.assert_allclose(picture[inside], expected[inside], atol=1e-6)
        return 0.5 * picture

    restored = scales.restore_scales(halve_contrast, ramp + stripes, (4,))
    inside = slice(16, -16), slice(16, -16)
    expected = np.clip(ramp + stripes - 0.5 * (ramp + 0.125), 0, 1)
    np.testing.assert_allclose(restored[inside], expected[inside], atol=3e-3)
