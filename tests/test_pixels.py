import jax.numpy as jnp
import numpy as np
import pytest

from jaxdeblur.errors import InputError
from jaxdeblur.pixels import check_range, from_float, reflected, to_float


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 255.0], r"picture has values from 0 to 255; floats must be in \[0, 1\]: divide"),
        ([-0.5, 1], r"picture has values from -0.5 to 1; .* clip them"),
        ([np.nan, 1.5, np.inf], r"picture has values from 1.5 to 1.5; .* clip them"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_floats_outside_the_range_are_refused(dtype, values, message):
    with pytest.raises(InputError, match=message):
        check_range(np.array(values, dtype), "picture")


@pytest.mark.parametrize(
    "pixels",
    [
        np.array([0, 255], np.uint8),
        np.array([0.0, 1.0005, np.nan], np.float32),  # rounded, and not a number
        np.array([np.inf, -np.inf, np.nan]),
        np.zeros((0, 3)),
    ],
    ids=["integers", "rounded", "not finite", "empty"],
)
def test_integers_and_what_is_no_number_are_of_any_value(pixels):
    check_range(pixels, "picture")
