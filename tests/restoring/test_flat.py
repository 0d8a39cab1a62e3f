"""What is flat stays flat, by hand and with a network that invents something."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdeblur
from jaxdeblur.restoring import flat

TYPES = [np.uint8, np.uint16, np.float32]


def levels(kind):
    return np.iinfo(kind).max if np.issubdtype(kind, np.integer) else 1


def restored_with(blurred, change):
    """A picture that a network changed by so much everywhere, in shares of the range."""
    scale = levels(blurred.dtype)
    restored = np.clip(blurred.astype(np.float64) + change * scale, 0, scale).astype(blurred.dtype)
    flat.keep_flat(blurred, restored)
    return restored


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (130, 131)], ids=str)
def test_what_is_constant_stays_as_it_is(kind, size):
    blurred = np.full((2, *size, 3), 0.3 * levels(kind)).astype(kind)
    blurred[1] = 0.9 * levels(kind)
    np.testing.assert_array_equal(restored_with(blurred, 0.2), blurred)


@pytest.mark.parametrize("kind", TYPES)
def test_a_change_is_bounded_by_the_contrast_around(kind):
    blurred = np.full((100, 160, 3), 100 / 255 * levels(kind)).astype(kind)
    steps = {20: 1, 60: 2, 100: 4, 140: 30}  # levels of 255 of a pixel in one channel
    for column, by in steps.items():
        blurred[50, column, 1] += np.asarray(by / 255 * levels(kind)).astype(kind)
    change = (restored_with(blurred, 0.4) - blurred.astype(np.float64)) / levels(kind) * 255
    # At most the contrast up to 2 levels; from there on 16 times what is more than 2.
    for column, most in ((20, 1), (60, 2), (100, 2 + 16 * 2), (140, 102)):
        np.testing.assert_allclose(change[50, column], most, atol=0.6)
        assert (change[42:59, column - 8 : column + 9] > 0.5).all()  # 8 pixels around at least
        assert (change[:, column - 15 : column - 12] == 0).all()  # and 11 at most
    assert (change[:38] == 0).all()


def test_a_line_that_was_blurred_may_become_itself_again():
    line = np.zeros((64, 64, 3), np.float32)
    line[:, 32] = 0.8
    weights = np.exp(-0.5 * (np.arange(-12, 13) / 3.0) ** 2)
    weights /= weights.sum()
    blurred = sum(
        w * np.roll(line, k, axis=1) for k, w in zip(range(-12, 13), weights, strict=True)
    )
    restored = line.copy()
    flat.keep_flat(blurred, restored)
    np.testing.assert_array_equal(restored, line)


def test_what_is_not_a_number_bounds_nothing_else():
    blurred = np.random.default_rng(0).random((40, 40, 3), dtype=np.float32)
    blurred[20, 20] = np.nan
    restored = 1 - blurred
    expected = restored.copy()
    flat.keep_flat(blurred, restored)
    np.testing.assert_array_equal(restored, expected)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("options", [{}, {"scales": (2,)}, {"self_ensemble": True}], ids=str)
def test_a_network_that_invents_borders_leaves_flat_pictures_alone(kind, options):
    module = jaxdeblur.create_model("atrous_net", num_channels=4, num_blocks=1)
    variables = jax.jit(module.init)(jax.random.key(1), jnp.zeros((1, 64, 64, 3)))
    deblur = jaxdeblur.weights.Deblurrer(module, variables["params"], {"channels": 3})
    blurred = np.full((140, 150, 3), 0.4 * levels(kind)).astype(kind)
    np.testing.assert_array_equal(deblur(blurred, **options), blurred)
    blurred[70:] += np.asarray(levels(kind) / 255).astype(kind)  # a step of one level of 255
    change = np.abs(deblur(blurred, **options).astype(np.float64) - blurred)
    assert change.max() <= 1.01 * levels(kind) / 255
    assert (change[:58] == 0).all()
