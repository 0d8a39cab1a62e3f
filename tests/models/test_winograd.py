import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdeblur.models import winograd
from jaxdeblur.models.winograd import Axis, Winograd, toom_cook

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize(
    ("tile", "taps"), [(m, r) for m, r in itertools.product(range(2, 7), range(2, 6)) if m + r < 10]
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
    ("size", "taps", "dilation", "expected"),
    [
        (16, 3, 1, 24),  # four tiles of 4: 6 products each
        (16, 3, 3, 24),  # one tile of 6 in each of 3 phases: 8 products each
        (1, 3, 1, 4),  # a tile of 2 is the smallest
        (12, 5, 1, 24),  # three tiles of 4: 8 products each
    ],
)
def test_plan_takes_the_fewest_products(size, taps, dilation, expected):
    plan = Winograd.plan(size, size, taps, dilation)
    assert plan.rows == plan.columns
    assert plan.rows.products == expected
    others = [Axis(size, taps, dilation, tile).products for tile in range(2, 10 - taps)]
    assert plan.rows.products == min(others)
    assert plan.rows.tiles * plan.rows.tile * dilation >= size


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.integers(2, winograd.MAX_TAPS),
    st.integers(1, 4),
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
)
def test_convolution_and_kernel_gradient_are_the_compilers(size, taps, dilation, channels):
    batch, features_in, features_out = channels
    height, width = (outputs + (taps - 1) * dilation for outputs in size)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, height, width, features_in)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(taps, taps, features_in, features_out)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(batch, *size, features_out)), jnp.float32)
    plan = Winograd.plan(*size, taps, dilation)

    def ours(x, kernel, cotangent):
        gradient = plan.restore_gradient(plan.kernel_gradient(x, cotangent, False))
        return plan.convolve(x, plan.transform_kernel(kernel), False), gradient

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

    results, expected = quick_jit(lambda *a: (ours(*a), plain(*a)))(x, kernel, cotangent)
    for result, reference in zip(results, expected, strict=True):
        assert result.shape == reference.shape
        tolerance = 1e-4 * np.abs(reference).max()
        np.testing.assert_allclose(result, reference, rtol=0, atol=tolerance)


def test_rounding_stays_near_1e5_with_many_channels():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 26, 26, 256)), rng.normal(size=(3, 3, 256, 16))
    plan = Winograd.plan(24, 24, 3, 1)
    result = plan.convolve(jnp.float32(x), plan.transform_kernel(jnp.float32(kernel)), False)
    shifts = itertools.product(range(3), repeat=2)
    exact = sum(x[:, i : i + 24, j : j + 24] @ kernel[i, j] for i, j in shifts)
    assert np.abs(result - exact).max() < 2e-5 * np.abs(exact).max()
