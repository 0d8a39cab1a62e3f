"""Which pixels are mixed, and how, against NumPy."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdeblur.models.mixing import Layout, Mixing


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("tokens", ["grid", "block"])
def test_pixels_are_mixed_over_a_grid_or_within_blocks(tokens):
    batch, height, width, side = 2, 4, 6, 2
    image = np.stack(np.mgrid[:batch, :height, :width], axis=-1)  # which image, row and column
    layout = Layout(tokens, side)
    split = np.asarray(layout.split(jnp.asarray(image)))
    rows, columns = height // side, width // side  # blocks, or places in a cell of the grid
    expected = []
    for i, j in itertools.product(range(side), repeat=2):
        if tokens == "block":  # the same place in every block
            places = [(side * m + i, side * n + j) for m in range(rows) for n in range(columns)]
        else:  # every place in one cell
            places = [(rows * i + m, columns * j + n) for m in range(rows) for n in range(columns)]
        expected.append([(b, *place) for b in range(batch) for place in places])
    np.testing.assert_array_equal(split, expected)
    np.testing.assert_array_equal(layout.join(jnp.asarray(split), image.shape), image)


def test_mixing_makes_each_token_a_sum_of_all():
    tokens, kernel, bias = normal(4, 3, 2), normal(4, 4, seed=1), normal(4, seed=2)
    mixed = Mixing().apply({"params": {"kernel": kernel, "bias": bias}}, tokens)
    expected = np.einsum("tmc,ts->smc", tokens, kernel) + np.asarray(bias)[:, None, None]
    np.testing.assert_allclose(mixed, expected, atol=1e-5)
