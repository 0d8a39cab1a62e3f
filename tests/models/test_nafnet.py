"""NAFNet against brute force in NumPy, hand-made parameters and the official program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdeblur import convert
from jaxdeblur.errors import InputError
from jaxdeblur.models import NafNet, nafnet

# LLVM's optimisations take most of the time to compile.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SIZES = [  # of the image, and the window
    ((7, 9), 3),
    ((7, 9), 4),
    ((5, 12), 7),  # as high as one window
    ((12, 7), 7),
    ((6, 6), 6),
    ((4, 3), 8),
    ((1, 5), 2),
    ((2, 3), 1),
]


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def means_of_windows(x, window):
    sides = tuple(min(size, window) for size in x.shape[1:3])
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(x, float), sides, axis=(1, 2))
    return windows.mean((-2, -1))


@pytest.mark.parametrize(("size", "window"), SIZES)
def test_means_are_over_every_window_inside(size, window):
    x = uniform(2, *size, 3)
    expected = means_of_windows(x, window)
    np.testing.assert_allclose(nafnet.window_means(jnp.asarray(x), window), expected, atol=1e-6)


@pytest.mark.parametrize(("size", "window"), SIZES)
def test_each_pixel_has_the_mean_of_the_nearest_window(size, window):
    means = means_of_windows(uniform(2, *size, 3), window)
    given = nafnet._repeat_edges(jnp.asarray(means, jnp.float32), (2, *size, 3))
    # A window's middle; of an even one, whose middle lies between two, the pixel before.
    nearest = [
        np.clip(np.arange(n) - (min(n, window) - 1) // 2, 0, count - 1)
        for n, count in zip(size, means.shape[1:3], strict=True)
    ]
    expected = means[:, nearest[0][:, None], nearest[1]]
    np.testing.assert_allclose(np.broadcast_to(given, (2, *size, 3)), expected, atol=1e-6)


def test_means_of_half_precision_are_summed_in_float32():
    x = jnp.full((1, 600, 1, 1), 1.5, jnp.bfloat16)  # whose sum bfloat16 loses from 512 on
    means = nafnet.window_means(x, 400)
    assert means.dtype == jnp.bfloat16
    np.testing.assert_array_equal(means.astype(jnp.float32), np.full((1, 201, 1, 1), 1.5))


def test_four_channels_become_two_by_two_pixels():
    x = uniform(2, 3, 5, 8)
    expected = np.empty((2, 6, 10, 2), np.float32)
    for row in (0, 1):
        for column in (0, 1):
            expected[:, row::2, column::2] = x[..., 2 * row + column :: 4]
    np.testing.assert_array_equal(nafnet._pixel_shuffle(jnp.asarray(x)), expected)


def block_by_hand(params, x, window):
    """A block in float64, each formula as the paper has it."""

    def norm(x, layer):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
        return centred / deviation * layer["scale"] + layer["bias"]

    def pointwise(x, layer):
        return x @ layer["kernel"][0, 0] + layer["bias"]

    def gated(x):
        return x[..., : x.shape[-1] // 2] * x[..., x.shape[-1] // 2 :]

    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    height, width = x.shape[1:3]
    y = pointwise(norm(x, p["norm1"]), p["conv1"])
    padded = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [
        padded[:, i : i + height, j : j + width] * p["conv2"]["kernel"][i, j, 0]
        for i in range(3)
        for j in range(3)
    ]
    y = gated(sum(taps) + p["conv2"]["bias"])
    nearest = [np.clip(np.arange(n) - (window - 1) // 2, 0, n - window) for n in (height, width)]
    means = means_of_windows(y, window)[:, nearest[0][:, None], nearest[1]]
    y = pointwise(y * pointwise(means, p["attention"]), p["conv3"])
    x = x + y * p["beta"]
    y = gated(pointwise(norm(x, p["norm2"]), p["conv4"]))
    return x + pointwise(y, p["conv5"]) * p["gamma"]


def test_a_block_is_what_the_paper_has():
    x = uniform(2, 6, 7, 4)
    block = nafnet.NafBlock(window=3)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes)
    expected = block_by_hand(params, x, 3)
    restored = quick_jit(block.apply)({"params": params}, x)
    np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_an_untrained_block_changes_nothing():
    x = uniform(1, 4, 4, 4)
    y, _ = quick_jit(nafnet.NafBlock(window=8).init_with_output)(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x)


def random_variables(module, x):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: jnp.asarray(0.3 * rng.uniform(-0.5, 1, s.shape), s.dtype), shapes)


def test_any_size_is_padded_with_zeros_to_the_right_and_below():
    module = NafNet(width=4, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    assert module.size_multiple == 4
    x = uniform(1, 13, 22, 3)
    variables = random_variables(module, x)
    padded = np.pad(x, ((0, 0), (0, 3), (0, 2), (0, 0)))
    apply = quick_jit(module.apply)
    expected = apply(variables, padded)[:, :13, :22]
    restored = apply(variables, x)
    assert np.abs(restored - x).max() > 0.01
    np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 9])
def test_it_adds_to_the_current_frame(channels):
    module = NafNet(width=4, encoder_blocks=(1,), decoder_blocks=(1,))
    x = uniform(1, 4, 6, channels)
    variables = jax.tree.map(jnp.zeros_like, random_variables(module, x))
    variables["params"]["ending"]["bias"] = jnp.array([0.5, 1.0, 2.0])
    current = x if channels == 3 else x[..., 3:6]
    restored = quick_jit(module.apply)(variables, x)
    np.testing.assert_allclose(restored, current + np.array([0.5, 1.0, 2.0]), rtol=1e-6)


def test_the_window_shrinks_with_the_levels_to_one_pixel_at_least():
    module = NafNet(width=4, encoder_blocks=(1, 1), decoder_blocks=(1, 1), window=2)
    x = uniform(1, 8, 8, 3)
    restored = quick_jit(module.apply)(random_variables(module, x), x)
    assert np.isfinite(restored).all()


def test_as_many_levels_up_as_down():
    module = NafNet(width=4, encoder_blocks=(1, 2, 3), decoder_blocks=(1, 2))
    with pytest.raises(InputError, match=r"\(1, 2, 3\) and decoder_blocks = \(1, 2\) .* equally"):
        jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))


def test_windows_are_those_of_the_official_program(parity):
    module, params = convert.from_nafnet(parity / "nafnet.pth")
    with np.load(parity / "nafnet_local.npz") as arrays:
        blurred = arrays["input"]
        (window,) = set(arrays["window"].ravel().tolist())
        expected = {window: arrays["output"], 10_000: arrays["output_global"]}
    # Random parameters make little of the means; far more than rounding, though.
    assert np.abs(expected[window] - expected[10_000]).max() > 1e-4
    for side, picture in expected.items():
        apply = quick_jit(module.clone(window=side).apply)
        assert np.abs(apply({"params": params}, blurred) - picture).max() <= 5e-6
