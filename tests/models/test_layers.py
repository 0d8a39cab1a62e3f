"""The layers that networks share, against NumPy and `jax.image.resize`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdeblur.models.layers import (
    Conv,
    Dense,
    DepthwiseConv,
    LayerNorm,
    Pointwise,
    resize_linear,
)

# LLVM's optimisations take most of the time to compile.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize(
    ("scale", "sizes"),
    [
        (1 / 4, [(8, 12), (4, 20)]),  # the latter to a single row
        (1 / 2, [(6, 10), (2, 14)]),
        (1, [(3, 5)]),
        (2, [(3, 5), (1, 7)]),
        (4, [(3, 5), (1, 2)]),
    ],
)
def test_sizes_change_as_by_jax(scale, sizes):
    images = [normal(2, *size, 3) for size in sizes]

    def both(images):
        shapes = [(2, *(round(n * scale) for n in x.shape[1:3]), 3) for x in images]
        expected = [
            jax.image.resize(x, shape, "bilinear", antialias=True)
            for x, shape in zip(images, shapes, strict=True)
        ]
        return [resize_linear(x, scale) for x in images], expected

    for resized, expected in zip(*quick_jit(both)(images), strict=True):
        np.testing.assert_allclose(resized, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [1 / 2, 4])
def test_a_change_of_size_keeps_the_type(scale):
    x = normal(1, 4, 6, 2, dtype=jnp.bfloat16)
    resized = quick_jit(functools.partial(resize_linear, scale=scale))(x)
    shape = (1, int(4 * scale), int(6 * scale), 2)
    expected = jax.image.resize(x.astype(jnp.float32), shape, "linear", antialias=True)
    assert resized.dtype == jnp.bfloat16
    np.testing.assert_allclose(resized.astype(jnp.float32), expected, atol=0.03)


@pytest.mark.parametrize("given", ["float32", "bfloat16"])
@pytest.mark.parametrize("asked", [None, "float32", "bfloat16"])
def test_the_channels_of_a_pixel_are_normalised_in_float32(given, asked):
    # So far from zero that bfloat16 would lose the differences that make up the variance.
    x = (4 + normal(2, 3, 4, 16)).astype(given)
    params = {"scale": normal(16, seed=1), "bias": normal(16, seed=2)}
    layer = LayerNorm(asked and jnp.dtype(asked))
    y = layer.apply({"params": params}, x)
    exact = np.asarray(x, np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
    expected = centred / deviation * params["scale"] + params["bias"]
    assert y.dtype == jnp.dtype(asked or given)
    tolerance = 1e-4 if y.dtype == jnp.float32 else 2**-8
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, rtol=tolerance, atol=tolerance)
    fresh = layer.init(jax.random.key(0), x)["params"]
    np.testing.assert_array_equal(fresh["scale"], np.ones(16))
    np.testing.assert_array_equal(fresh["bias"], np.zeros(16))


@pytest.mark.parametrize(
    "layer",
    [Pointwise(5), Pointwise(5, use_bias=False), Dense(5)],
    ids=["Pointwise", "without bias", "Dense"],
)
def test_a_map_of_the_channels_is_a_product(layer):
    x = normal(2, 3, 4, 7)
    variables = quick_jit(layer.init)(jax.random.key(0), x)
    shapes = jax.tree.map(lambda leaf: leaf.shape, variables["params"])
    kernel_shape = (7, 5) if isinstance(layer, Dense) else (1, 1, 7, 5)
    has_bias = getattr(layer, "use_bias", True)
    assert shapes == ({"kernel": kernel_shape} | ({"bias": (5,)} if has_bias else {}))
    params = {name: normal(*shape, seed=len(shape)) for name, shape in shapes.items()}
    kernel = np.asarray(params["kernel"], np.float64).reshape(7, 5)
    expected = np.einsum("bhwc,cf->bhwf", x, kernel) + params.get("bias", 0)
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=0, atol=1e-5)
    half = layer.clone(dtype=jnp.bfloat16).apply({"params": params}, x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), expected, rtol=0, atol=0.1)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.7])
def test_channels_that_are_all_alike_have_nothing_to_normalise(value):
    x = jnp.full((1, 3, 4, 24), value)
    params = {"scale": jnp.ones(24), "bias": jnp.full(24, 0.5)}
    np.testing.assert_allclose(LayerNorm().apply({"params": params}, x), 0.5, atol=2e-3)


@pytest.mark.parametrize("shape", [(1, 1, 1, 7), (2, 1, 1, 7), (2, 3, 4, 7)], ids=str)
@pytest.mark.parametrize("use_bias", [True, False])
def test_attention_weights_the_channels_before_the_product(shape, use_bias):
    x, attention = normal(shape[0], 3, 4, 7), normal(*shape, seed=1)
    params = {"kernel": normal(1, 1, 7, 5, seed=2)}
    if use_bias:
        params["bias"] = normal(5, seed=3)
    layer = Pointwise(5, use_bias=use_bias)
    weighted = np.asarray(x, np.float64) * np.asarray(attention)
    expected = weighted @ np.asarray(params["kernel"][0, 0]) + params.get("bias", 0)
    y = layer.apply({"params": params}, x, attention)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def test_a_depthwise_layer_adds_its_bias_and_has_a_kernel_for_each_channel():
    x = normal(1, 4, 5, 6)
    layer = DepthwiseConv(3)
    variables = layer.init(jax.random.key(0), x)
    shapes = {name: leaf.shape for name, leaf in variables["params"].items()}
    assert shapes == {"kernel": (3, 3, 1, 6), "bias": (6,)}
    # The tap above and to the right of the pixel, by a factor of the channel's own.
    factors, bias = np.arange(1.0, 7.0), np.arange(6.0)
    kernel = jnp.zeros((3, 3, 1, 6)).at[0, 2, 0].set(factors)
    y = layer.apply({"params": {"kernel": kernel, "bias": jnp.asarray(bias)}}, x)
    expected = np.broadcast_to(bias, x.shape).copy()
    expected[:, 1:, :-1] += np.asarray(x)[:, :-1, 1:] * factors
    np.testing.assert_allclose(y, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv(2, 3), (3, 3, 4, 2)),
        (Dense(2), (4, 2)),
        (Pointwise(2), (1, 1, 4, 2)),
        (DepthwiseConv(3), (3, 3, 1, 4)),
    ],
    ids=["Conv", "Dense", "Pointwise", "DepthwiseConv"],
)
def test_no_initialiser_is_asked_for_parameters_that_are_there(layer, shape):
    def refuse(*_):
        raise AssertionError("an initialiser was called")

    x = normal(1, 3, 3, 4)
    strict = layer.clone(kernel_init=refuse)
    params = {"kernel": normal(*shape), "bias": normal(shape[-1])}
    apply = functools.partial(strict.apply, {"params": params})
    assert jax.eval_shape(apply, x).shape == (1, 3, 3, shape[-1])
    with pytest.raises(AssertionError, match="initialiser"):
        jax.eval_shape(strict.init, jax.random.key(0), x)
