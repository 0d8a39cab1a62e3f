"""Costs against counts by hand."""

import pytest

from jaxdeblur.models import PRESETS, create_model
from jaxdeblur.models.cost import multiply_adds, num_parameters


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [
        ("carlo_net", 3, 2_663_555),
        ("kaist_net", 3, 11_590_813),
        ("kaist_net", 9, 11_595_613),
        ("atrous_net", 3, 12_571_011),
        ("atrous_net_reds", 9, 24_433_539),
    ],
)
def test_parameters_are_the_published_ones(name, channels, expected):
    assert num_parameters(PRESETS[name], channels) == expected


def test_atrous_net_multiplies_as_counted_by_hand():
    module = create_model("atrous_net", num_channels=8, num_blocks=2)
    full = 64 * 96  # pixels
    half = full // 4
    block = 4 * 9 * 8 * 4 + 9 * 16 * 8
    by_hand = full * (81 * 3 * 4 + 9 * 8 * 2 + 9 * 2 * 3)  # stem, mix, difference
    by_hand += half * (9 * 4 * 8 + 2 * block + 9 * 8 * 4)  # down, blocks, up
    assert multiply_adds(module, (1, 64, 96, 3)) == by_hand
    assert multiply_adds(module, (3, 63, 95, 3)) == 3 * by_hand  # padded to the grid


def test_carlo_net_multiplies_on_the_pixels_that_valid_convolutions_leave():
    module = create_model("carlo_net", num_filters=4)
    pixels = [(32 - 2 * i) * (40 - 2 * i) for i in range(1, 11)]
    # A transposed convolution multiplies where the convolution did that it turns round.
    by_hand = 2 * 9 * 3 * 4 * pixels[0] + 2 * 9 * 4 * 4 * sum(pixels[1:])
    assert multiply_adds(module, (1, 32, 40, 3)) == by_hand
