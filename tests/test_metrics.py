import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.metrics

from jaxdeblur import metrics
from jaxdeblur.errors import InputError

# LLVM's optimisations take most of the time to compile.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
mse, psnr, ssim = (quick_jit(f) for f in (metrics.mse, metrics.psnr, metrics.ssim))


def noisy_pair(shape, noise, seed=0):
    """A smooth image and the same with noise, so that their SSIM is neither 0 nor 1."""
    rng = np.random.default_rng(seed)
    ramp = sum(
        np.linspace(0, 1, n).reshape([-1 if a == i else 1 for a in range(len(shape))])
        for i, n in enumerate(shape)
    )
    sharp = 0.5 + 0.4 * np.sin(3 * ramp + rng.uniform(size=shape[-1]))
    restored = np.clip(sharp + noise * rng.normal(size=shape), 0, 1)
    return restored.astype(np.float32), sharp.astype(np.float32)


@pytest.fixture(scope="module", params=[(23, 31, 3), (11, 40, 3), (16, 16, 1)], ids=str)
def pairs(request):
    made = [noisy_pair(request.param, noise, i) for i, noise in enumerate((0.01, 0.1, 0.3))]
    return [np.stack(images) for images in zip(*made, strict=True)]


def test_mse_and_psnr_are_those_of_scikit_image(pairs):
    restored, sharp = pairs
    errors, ratios = mse(restored, sharp), psnr(restored, sharp)
    assert errors.shape == ratios.shape == (3,)
    for i in range(3):
        a, b = restored[i].astype(np.float64), sharp[i].astype(np.float64)
        np.testing.assert_allclose(errors[i], skimage.metrics.mean_squared_error(b, a), rtol=1e-5)
        expected = skimage.metrics.peak_signal_noise_ratio(b, a, data_range=1)
        np.testing.assert_allclose(ratios[i], expected, atol=1e-4)


def test_ssim_is_that_of_scikit_image_where_the_window_is_inside(pairs, reference_ssim):
    restored, sharp = pairs
    similarities = ssim(restored, sharp)
    assert similarities.shape == (3,)
    for i in range(3):
        expected = reference_ssim(sharp[i], restored[i])
        np.testing.assert_allclose(similarities[i], expected, atol=2e-5)
    assert similarities[0] > similarities[1] > similarities[2]


def test_figures_of_constant_images_are_those_by_hand():
    restored, sharp = jnp.full((12, 12, 3), 0.5), jnp.full((12, 12, 3), 0.25)
    np.testing.assert_allclose(mse(restored, sharp), 0.0625, rtol=1e-6)
    np.testing.assert_allclose(psnr(restored, sharp), 12.0412, atol=1e-4)
    # Without variance SSIM is its luminance term, with C1 = 0.01**2.
    expected = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    np.testing.assert_allclose(ssim(restored, sharp), expected, rtol=1e-4)


def test_one_wrong_pixel_is_weighted_by_the_number_of_values():
    sharp = jnp.zeros((2, 12, 10, 3))
    restored = sharp.at[1, 3, 4, 1].set(0.6)
    np.testing.assert_allclose(mse(restored, sharp), [0, 0.36 / 360], rtol=1e-6)
    ratios = psnr(restored, sharp)
    assert np.isposinf(ratios[0])
    np.testing.assert_allclose(ratios[1], 30, atol=1e-4)


def test_identical_images_are_perfect():
    _, sharp = noisy_pair((13, 14, 3), 0)
    assert np.isposinf(psnr(sharp, sharp))
    assert mse(sharp, sharp) == 0
    np.testing.assert_allclose(ssim(sharp, sharp), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["mse", "psnr", "ssim"])
def test_any_number_of_leading_axes_is_kept(name):
    metric = quick_jit(getattr(metrics, name))
    restored, sharp = noisy_pair((12, 12, 3), 0.1)
    one = metric(restored, sharp)
    assert one.shape == ()
    stacked = [np.broadcast_to(x, (2, 3, 12, 12, 3)) for x in (restored, sharp)]
    np.testing.assert_allclose(metric(*stacked), np.full((2, 3), one), rtol=1e-5)


@pytest.mark.parametrize("name", ["mse", "psnr", "ssim"])
def test_bfloat16_images_are_measured_in_float32(name):
    metric = quick_jit(getattr(metrics, name))
    restored, sharp = (jnp.asarray(x, jnp.bfloat16) for x in noisy_pair((12, 12, 3), 0.1))
    result = metric(restored, sharp)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(
        result, metric(restored.astype(jnp.float32), sharp.astype(jnp.float32))
    )


@pytest.mark.parametrize("name", ["mse", "psnr", "ssim"])
@pytest.mark.parametrize(
    ("restored", "sharp", "message"),
    [
        (np.zeros((12, 12, 3)), np.zeros((12, 13, 3)), r"\(12, 12, 3\).*\(12, 13, 3\)"),
        (np.zeros((1, 12, 12, 3)), np.zeros((12, 12, 3)), r"one shape \[..., H, W, C\]"),
        (np.zeros((12, 12)), np.zeros((12, 12)), r"\(12, 12\)"),
        (np.zeros((12, 12, 3), np.uint8), np.zeros((12, 12, 3)), "restored has type uint8.*float"),
        (np.zeros((12, 12, 3)), np.zeros((12, 12, 3), np.int32), "sharp has type int32"),
    ],
    ids=["sizes", "batch", "no channels", "uint8", "int32"],
)
def test_wrong_images_are_refused(name, restored, sharp, message):
    with pytest.raises(InputError, match=message):
        getattr(metrics, name)(restored, sharp)


@pytest.mark.parametrize("shape", [(10, 40, 3), (40, 10, 3)])
def test_ssim_refuses_images_smaller_than_its_window(shape):
    with pytest.raises(InputError, match="11x11"):
        metrics.ssim(np.zeros(shape), np.zeros(shape))


@pytest.mark.parametrize("metric", [metrics.mse, metrics.psnr, metrics.ssim])
@pytest.mark.parametrize("name", ["restored", "sharp"])
def test_floats_of_256_levels_are_refused(metric, name):
    images = {"restored": np.full((16, 16, 3), 0.5), "sharp": np.full((16, 16, 3), 0.5)}
    images[name] = images[name] * 255
    with pytest.raises(InputError, match=rf"{name} has values from 127.5 to 127.5.*divide"):
        metric(**images)
    jax.jit(metric)(**images)  # which knows no values
