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


# NAFNet and MAXIM: each layer's numbers, by hand. A sheet has, of every layer, the numbers of its
# kernel, its other parameters, and how often each number of the kernel is multiplied.


def layer(numbers, others, times):
    return [(numbers, others, times)]


def dense(inputs, outputs, pixels):
    return layer(inputs * outputs, outputs, pixels)


def conv(side, inputs, outputs, pixels):
    return layer(side**2 * inputs * outputs, outputs, pixels)


def norm(channels):
    return layer(0, 2 * channels, 0)


def total(sheet):
    """Parameters and products of a sheet."""
    return sum(n + m for n, m, _ in sheet), sum(n * times for n, _, times in sheet)


def nafnet_sheet(width, encoder, middle, decoder, pixels, channels=3):
    def blocks(count, level):
        c, p = width << level, pixels >> 2 * level
        block = norm(c) + dense(c, 2 * c, p) + layer(9 * 2 * c, 2 * c, p)  # depthwise
        block += dense(c, c, 1) + dense(c, c, p)  # attention sees the mean of all pixels
        block += norm(c) + dense(c, 2 * c, p) + dense(c, c, p) + layer(0, 2 * c, 0)  # beta, gamma
        return count * block

    sheet = conv(3, channels, width, pixels) + conv(3, width, 3, pixels)
    for level, count in enumerate(encoder):
        c, below = width << level, pixels >> 2 * (level + 1)
        sheet += blocks(count, level) + conv(2, c, 2 * c, below)
        sheet += layer(2 * c * 4 * c, 0, below)  # to four times the pixels, without a bias
    sheet += blocks(middle, len(encoder))
    for level, count in enumerate(reversed(decoder)):
        sheet += blocks(count, level)
    return sheet


def test_nafnet_costs_what_was_published():
    counts = {
        name: total(nafnet_sheet(width, (1, 1, 1, 28), 1, (1, 1, 1, 1), 256**2))
        for name, width in (("nafnet", 32), ("nafnet_64", 64))
    }
    assert [count for count, _ in counts.values()] == [17_111_907, 67_888_835]
    for (_, products), giga in zip(counts.values(), (16, 63), strict=True):
        assert products / 1e9 == pytest.approx(giga, abs=0.6)
    assert multiply_adds(PRESETS["nafnet"], (1, 256, 256, 3)) == counts["nafnet"][1]


def test_a_small_nafnet_multiplies_as_counted_by_hand():
    module = create_model("nafnet", width=4, encoder_blocks=(1, 2), decoder_blocks=(2, 1))
    sheet = nafnet_sheet(4, (1, 2), 1, (2, 1), 32 * 48, channels=9)
    assert (num_parameters(module, 9), multiply_adds(module, (1, 32, 48, 9))) == total(sheet)
    assert multiply_adds(module, (1, 30, 45, 9)) == total(sheet)[1]  # padded to multiples of 4


def maxim_sheet(features, num_stages, num_groups, num_bottlenecks, pixels, channels=3, effort=None):
    widths, sides = [features << level for level in range(3)], (16, 16, 8)
    sizes = [pixels >> 2 * level for level in range(4)]

    def mixing(c, side, p):
        return layer(side**4, side**2, c * p // side**2)

    def mlp(c, side, p):
        inner = norm(c) + dense(c, 2 * c, p) + norm(c) + mixing(c, side, p) + dense(c, c, p)
        return norm(c) + dense(c, 2 * c, p) + 2 * inner + dense(2 * c, c, p)

    def attention(c):
        return dense(c, c // 4, 1) + dense(c // 4, c, 1)

    def gating(c, side, p):
        weights = norm(c) + dense(c, 2 * c, p) + 2 * mixing(c, side, p) + dense(2 * c, c, p)
        return 2 * (norm(c) + dense(c, c, p) + weights + dense(c, c, p))

    def cross(inputs, c, side, p):
        return dense(inputs, c, p) + dense(c, c, p) + gating(c, side, p)

    def level(inputs, c, side, p):
        pair = mlp(c, side, p) + norm(c) + 2 * conv(3, c, c, p) + attention(c)
        return dense(inputs, c, p) + num_groups * pair

    def doubling(inputs, c, p):
        return layer(4 * inputs * c, c, p // 4)

    def stage(first, last):
        sheet = []
        for i, (c, side) in enumerate(zip(widths, sides, strict=True)):
            p, above, below = sizes[i], widths[max(i - 1, 0)], widths[min(i + 1, 2)]
            sheet += conv(3, channels, c, p) + level(above + c, c, side, p)
            sheet += conv(4, c, c, sizes[i + 1])
            if not first:  # the stage before is merged into the input, and into the way down
                sheet += 2 * cross(c, c, side, p)
            sheet += 2 * [part for width in widths for part in dense(width, c, p)]  # resized
            sheet += doubling(below, c, p) + cross(3 * c, c, side, p)
            sheet += doubling(below, c, p) + level(4 * c, c, side, p)
            sheet += conv(3, c, 3, p)
            if not last:
                sheet += conv(3, c, c, p) + conv(3, 3, c, p)
        c, p = widths[2], sizes[3]
        pair = mlp(c, 8, p) + norm(c) + 2 * dense(c, c, p) + attention(c)
        return sheet + num_bottlenecks * (dense(c, c, p) + num_groups * pair)

    stages = range(effort or num_stages)
    return [part for i in stages for part in stage(i == 0, i == num_stages - 1)]


def test_a_small_maxim_costs_as_counted_by_hand():
    fields = {"num_features": 4, "num_stages": 2, "num_groups": 1, "num_bottleneck_blocks": 2}
    module = create_model("maxim", **fields)
    sheet = maxim_sheet(4, 2, 1, 2, 64 * 128, channels=9)
    assert num_parameters(module, 9) == total(sheet)[0]
    assert multiply_adds(module, (1, 60, 120, 9)) == total(sheet)[1]  # padded to multiples of 64
    sheet = maxim_sheet(4, 2, 1, 2, 64 * 128, channels=9, effort=1)
    assert multiply_adds(module.clone(effort=1), (1, 60, 120, 9)) == total(sheet)[1]


def test_maxim_costs_what_was_published():
    # Of the presets `jaxdeblur models` tells the same.
    counts = [total(maxim_sheet(32, stages, 2, 2, 256**2)) for stages in (1, 2, 3)]
    assert [count for count, _ in counts] == [6_139_561, 14_176_178, 22_212_795]
    assert [products / 1e9 for _, products in counts] == pytest.approx([41, 97, 152], abs=0.5)
