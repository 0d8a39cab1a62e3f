import numpy as np
import pytest

from jaxdeblur.pixels import from_float, reflected, to_float


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_comes_back(dtype):
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    floats = to_float(levels)
    assert (floats.dtype, floats[0], floats[-1]) == (np.float32, 0, 1)
    np.testing.assert_array_equal(from_float(floats, dtype), levels)


def test_integers_are_rounded_and_what_is_outside_is_clipped():
    values = np.array([-0.5, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.5])
    levels = from_float(values, np.uint8)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels, [0, 0, 1, 254, 255])
    np.testing.assert_array_equal(from_float(values, np.float64), np.clip(values, 0, 1))


def test_reflection_is_that_of_numpy():
    for size in (2, 3, 5):
        expected = np.pad(np.arange(size), (0, 17), mode="reflect")
        np.testing.assert_array_equal(reflected(np.arange(size + 17), size), expected)
    np.testing.assert_array_equal(reflected(np.arange(4), 1), np.zeros(4))
