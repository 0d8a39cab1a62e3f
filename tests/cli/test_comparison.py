"""Comparisons in words, by hand; what is measured is tested with the command."""

import math

import pytest

from jaxdeblur.cli import comparison

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("comparisons", "words"),
    [
        (
            [(20.0, 22.0, 0.5, 0.75), (30.0, 34.0, 0.7, 0.85)],
            "mean of 2: PSNR 25.00 -> 28.00 dB, SSIM 0.6000 -> 0.8000",
        ),
        (
            [(INF, 40.0, 1.0, 0.9), (20.0, 22.0, 0.5, 0.7)],
            "mean of 2: PSNR 20.00 -> 31.00 dB, SSIM 0.7500 -> 0.8000 (infinite PSNR left out)",
        ),
        (
            [(INF, 40.0, 1.0, 0.9), (INF, 42.0, 1.0, 0.8)],
            "mean of 2: PSNR inf -> 41.00 dB, SSIM 1.0000 -> 0.8500 (infinite PSNR left out)",
        ),
        (
            [(20.0, 22.0, NAN, NAN), (30.0, 34.0, 0.7, 0.85)],
            "mean of 2: PSNR 25.00 -> 28.00 dB, SSIM 0.7000 -> 0.8500",
        ),
        ([(20.0, 22.0, NAN, NAN)] * 3, "mean of 3: PSNR 20.00 -> 22.00 dB"),
    ],
)
def test_the_mean_leaves_out_what_is_not_finite(comparisons, words):
    assert comparison.mean_in_words(comparisons) == words
