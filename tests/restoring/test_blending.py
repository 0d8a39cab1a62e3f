"""The weights of tiles that overlap, by what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdeblur.restoring import blending


@st.composite
def lines(draw):
    """Length of a picture, and longest tile, overlap and multiple that a network may ask for."""
    multiple = draw(st.sampled_from([1, 2, 8, 16, 64]))
    longest = multiple * draw(st.integers(1, 12))
    overlap = draw(st.integers(0, longest // 4))
    return draw(st.integers(1, 3000)), longest, overlap, multiple


def laid(size, longest, overlap, multiple):
    length, count = blending.length_of(size, longest, overlap, multiple)
    return length, count, blending.starts(size, length, count)


@given(lines())
def test_tiles_cover_a_line_and_overlap_as_much_as_asked(line):
    size, longest, overlap, multiple = line
    length, count, first = laid(*line)
    assert length % multiple == 0
    assert length <= longest
    assert len(first) == count
    assert first[0] == 0
    if count == 1:
        assert size <= length < size + multiple
        return
    assert first[-1] + length == size
    steps = np.diff(first)
    assert (steps > 0).all()
    assert steps.max() <= length - overlap
    assert steps.max() - steps.min() <= 1
    # One tile less could not do it, nor shorter ones.
    assert (count - 1) * longest - (count - 2) * overlap < size
    shorter = length - multiple
    assert count * shorter - (count - 1) * overlap < size


@given(lines())
def test_the_weights_of_every_pixel_sum_up_to_one(line):
    size, _, overlap, _ = line
    length, _, first = laid(*line)
    weights = blending.weights(size, length, first, max(overlap, 1))
    total = np.zeros(size)
    for start, weight in zip(first, weights, strict=True):
        assert weight.dtype == np.float32
        assert len(weight) == min(length, size - start)
        assert (weight > 0).all()
        assert (weight <= 1).all()
        total[start : start + len(weight)] += weight
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)


@given(lines())
def test_weights_fall_off_steadily_where_two_tiles_overlap(line):
    size, _, overlap, _ = line
    length, count, first = laid(*line)
    weights = blending.weights(size, length, first, max(overlap, 1))
    assert weights[0][0] == weights[-1][-1] == 1  # nothing falls off where the picture ends
    if count < 2 or (count > 2 and (length > first[2] or first[1] < max(overlap, 1))):
        return  # more than two tiles meet, or their ends do
    inside = weights[0][: first[1]]
    np.testing.assert_array_equal(inside, 1)  # of the first tile alone
    meeting = weights[0][first[1] :], weights[1][: length - first[1]]
    assert (np.diff(meeting[0]) <= 1e-6).all()
    np.testing.assert_allclose(meeting[0] + meeting[1], 1, atol=1e-6)
    np.testing.assert_allclose(meeting[0], meeting[1][::-1], atol=1e-6)  # alike for both


def test_weights_are_a_ramp_as_long_as_the_overlap():
    first, second = blending.weights(12, 8, [0, 4], 4)
    ramp = [0.125, 0.375, 0.625, 0.875]
    np.testing.assert_allclose(first, [1, 1, 1, 1, *ramp[::-1]])
    np.testing.assert_allclose(second, [*ramp, 1, 1, 1, 1])


def test_a_short_picture_has_one_tile_that_is_longer():
    assert blending.length_of(5, 64, 16, 16) == (16, 1)
    assert blending.starts(5, 16, 1) == [0]
    (weight,) = blending.weights(5, 16, [0], 16)
    np.testing.assert_array_equal(weight, np.ones(5))


@pytest.mark.parametrize(
    ("size", "length", "count"),
    # Two of 512 would do for up to 960; then three, and as short as will do.
    [(512, 512, 1), (513, 320, 2), (960, 512, 2), (961, 384, 3), (1280, 512, 3)],
)
def test_tiles_are_as_few_and_then_as_short_as_will_do(size, length, count):
    assert blending.length_of(size, 512, 64, 64) == (length, count)
