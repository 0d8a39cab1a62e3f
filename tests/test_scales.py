"""Passes over shrunk pictures, against what OpenCV shrinks and known changes."""

import cv2
import numpy as np

from jaxdeblur import scales


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
