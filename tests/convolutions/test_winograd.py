import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdeblur.convolutions import winograd
from jaxdeblur.convolutions.phases import merge_phases, split_phases
from jaxdeblur.convolutions.winograd import Axis, Winograd, toom_cook

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def assert_same(ours, reference, *arguments):
    """Compares arrays that two functions return, to 1e-4 of the largest value."""
    both = quick_jit(lambda *a: (ours(*a), reference(*a)))
    for result, expected in zip(*both(*arguments), strict=True):
        assert result.shape == expected.shape
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("tile", "taps"),
    [(m, r) for r in range(2, winograd.MAX_TAPS + 1) for m in winograd.tile_sizes(r)],
)
def test_toom_cook_is_the_filter_in_float64(tile, taps):
    bt, g, at = toom_cook(tile, taps)
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=tile + taps - 1), rng.normal(size=taps)
    expected = np.correlate(x, kernel, mode="valid")
    np.testing.assert_allclose(at @ ((g @ kernel) * (bt @ x)), expected, rtol=0, atol=1e-12)


def test_toom_cook_of_two_outputs_and_three_taps_is_the_textbooks():
    # Lavin & Gray, section 4.1, up to the signs that their factors share out differently.
    bt, g, at = toom_cook(2, 3)
    x, kernel = np.array([3.0, 1.0, 4.0, 1.0]), np.array([5.0, 9.0, 2.0])
    products = (g @ kernel) * (bt @ x)
    m1, m4 = (3 - 4) * 5, (1 - 1) * 2
    m2, m3 = (1 + 4) * (5 + 9 + 2) / 2, (4 - 1) * (5 - 9 + 2) / 2
    np.testing.assert_allclose(at @ products, [m1 + m2 + m3, m2 - m3 - m4])


@pytest.mark.parametrize(
    ("size", "taps", "dilation", "tile", "expected"),
    [
        (16, 3, 1, 4, 24),  # four tiles, 6 products each
        (16, 3, 3, 4, 36),  # two tiles in each of 3 phases, 6 products each
        (1, 3, 1, 2, 4),  # one tile, 4 products
        (12, 5, 1, 3, 28),  # four tiles, 7 products each
    ],
)
def test_an_axis_counts_its_products(size, taps, dilation, tile, expected):
    axis = Axis(size, taps, dilation, tile)
    assert axis.products == expected
    assert axis.tiles * axis.tile * dilation >= size


def test_every_tile_is_a_choice():
    choices = Winograd.choices(5, 8, 3, 1)
    tiles = [(choice.rows.tile, choice.columns.tile) for choice in choices]
    assert sorted(tiles) == list(itertools.product(range(2, 6), repeat=2))
    assert {(choice.rows.size, choice.columns.size) for choice in choices} == {(5, 8)}


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.integers(2, winograd.MAX_TAPS),
    st.integers(1, 4),
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_convolution_and_kernel_gradient_are_the_compilers(size, taps, dilation, channels, tiles):
    batch, features_in, features_out = channels
    height, width = (outputs + (taps - 1) * dilation for outputs in size)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, height, width, features_in)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(taps, taps, features_in, features_out)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(batch, *size, features_out)), jnp.float32)
    choices = winograd.tile_sizes(taps)
    rows, columns = (
        Axis(n, taps, dilation, choices[i % len(choices)]) for n, i in zip(size, tiles, strict=True)
    )
    plan = Winograd(rows, columns)

    def ours(x, kernel, cotangent):
        x, kernel, cotangent = x[:, :, None], kernel[:, None], cotangent[:, :, None]
        gradient = plan.restore_gradient(plan.kernel_gradient(x, cotangent, False), kernel.shape)
        output = plan.convolve(x, plan.transform_kernel(kernel), False)
        return output[:, :, 0], gradient[:, 0]

    def plain(x, kernel, cotangent):
        def convolve(kernel):
            return jax.lax.conv_general_dilated(
                x,
                kernel,
                (1, 1),
                "VALID",
                rhs_dilation=(dilation, dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        output, vjp = jax.vjp(convolve, kernel)
        return output, vjp(cotangent)[0]

    assert_same(ours, plain, x, kernel, cotangent)


@pytest.mark.parametrize("size", [(2, 2), (9, 7)], ids=str)  # a few tiles, and many
@pytest.mark.parametrize(
    "features", [(3, 8), pytest.param((8, 3), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("out_first", [False, True])
@pytest.mark.parametrize("turned", [0, 10**6])
def test_phases_of_a_stride_are_channels(monkeypatch, size, features, out_first, turned):
    monkeypatch.setattr(winograd, "_TURNED_FEATURES", turned)
    stride, (first, second) = 2, features
    kernel_shape = (3, stride, 3, stride * first, second)
    phased, plain = (2, stride, stride * first), (2, 1, second)
    (batch, *side_in), (_, *side_out) = (plain, phased) if out_first else (phased, plain)
    rng = np.random.default_rng(0)
    height, width = size
    shapes = (
        (batch, height + 2, side_in[0], width + 2, side_in[1]),
        kernel_shape,
        (batch, height, side_out[0], width, side_out[1]),
    )
    x, kernel, cotangent = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    plan = Winograd(Axis(height, 3, 1, 4), Axis(width, 3, 1, 3))

    def ours(x, kernel, cotangent):
        gradient = plan.kernel_gradient(x, cotangent, out_first)
        output = plan.convolve(x, plan.transform_kernel(kernel), out_first)
        return output, plan.restore_gradient(gradient, kernel.shape)

    def compilers(x, kernel, cotangent):
        def convolve(kernel):
            layout = ("NHWC", "HWOI" if out_first else "HWIO", "NHWC")
            images, kernels = merge_phases(x, 1), merge_phases(kernel, 0)
            y = jax.lax.conv_general_dilated(
                images, kernels, (1, 1), "VALID", dimension_numbers=layout
            )
            return split_phases(y, side_out[0], 1)

        output, vjp = jax.vjp(convolve, kernel)
        return output, vjp(cotangent)[0]

    assert_same(ours, compilers, x, kernel, cotangent)


def test_rounding_stays_near_1e5_with_many_channels():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 26, 26, 256)), rng.normal(size=(3, 3, 256, 16))
    plan = Winograd(Axis(24, 3, 1, 4), Axis(24, 3, 1, 4))
    transformed = plan.transform_kernel(jnp.float32(kernel)[:, None])
    result = plan.convolve(jnp.float32(x)[:, :, None], transformed, False)[:, :, 0]
    shifts = itertools.product(range(3), repeat=2)
    exact = sum(x[:, i : i + 24, j : j + 24] @ kernel[i, j] for i, j in shifts)
    assert np.abs(result - exact).max() < 2e-5 * np.abs(exact).max()
