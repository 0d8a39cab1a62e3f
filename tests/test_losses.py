import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from jaxdeblur.losses import LOSSES

RESTORED = jnp.array([[[[0.5, 0.25, 1.0]]], [[[0.0, 0.75, 0.5]]]])
SHARP = jnp.array([[[[0.25, 0.75, 1.0]]], [[[0.0, 0.0, 1.0]]]])
# Differences: 0.25, -0.5, 0, 0, 0.75, -0.5.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1", 2.0 / 6),
        ("mse", (0.0625 + 0.25 + 0.5625 + 0.25) / 6),
        (
            "charbonnier",
            sum((d * d + 1e-6) ** 0.5 for d in (0.25, -0.5, 0.0, 0.0, 0.75, -0.5)) / 6,
        ),
    ],
)
def test_loss_is_the_mean_over_pixels_and_channels(name, expected):
    loss = LOSSES[name](RESTORED, SHARP)
    assert loss.shape == ()
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(LOSSES[name](SHARP, RESTORED), expected, rtol=1e-6)


def test_there_are_these_losses():
    assert set(LOSSES) == {
        "l1",
        "mse",
        "charbonnier",
        "charbonnier_frequency",
        "psnr",
        "negative_psnr",
        "ssim_l1",
    }


def test_psnr_is_the_mean_over_images_of_the_decibels_above_the_floor():
    errors = np.array([(0.0625 + 0.25) / 3, (0.5625 + 0.25) / 3])
    expected = np.mean(10 * np.log10(1 + errors / 1e-4))
    np.testing.assert_allclose(LOSSES["psnr"](RESTORED, SHARP), expected, rtol=1e-6)
    # Far above the floor of 40 dB, a tenth of the error is 10 dB less, of every image alike.
    less = LOSSES["psnr"](SHARP + (RESTORED - SHARP) * 0.1**0.5, SHARP)
    np.testing.assert_allclose(expected - less, 10, atol=0.2)


def test_psnr_of_equal_images_is_zero_with_no_gradient():
    loss, gradient = jax.value_and_grad(LOSSES["psnr"])(SHARP, SHARP)
    assert loss == 0
    np.testing.assert_array_equal(gradient, jnp.zeros_like(SHARP))


def test_negative_psnr_is_minus_the_mean_over_images():
    rng = np.random.default_rng(0)
    sharp = rng.random((3, 6, 5, 3))
    restored = sharp + np.array([0.1, 0.01, 0.3]).reshape(3, 1, 1, 1) * rng.normal(size=sharp.shape)
    errors = np.square(restored - sharp).mean((1, 2, 3))
    expected = 10 * np.log10(errors).mean()
    loss = LOSSES["negative_psnr"](*(jnp.asarray(x, jnp.float32) for x in (restored, sharp)))
    assert loss.shape == ()
    np.testing.assert_allclose(loss, expected, rtol=1e-3)
    assert expected == pytest.approx(
        -np.mean(
            [
                peak_signal_noise_ratio(a, b, data_range=1)
                for a, b in zip(sharp, restored, strict=True)
            ]
        )
    )


def test_negative_psnr_of_equal_images_is_finite_with_no_gradient():
    loss, gradient = jax.value_and_grad(LOSSES["negative_psnr"])(SHARP, SHARP)
    np.testing.assert_allclose(loss, -80, rtol=1e-6)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(SHARP))


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1)])
def test_charbonnier_frequency_adds_a_tenth_of_the_difference_of_the_transforms(size):
    rng = np.random.default_rng(0)
    restored, sharp = rng.random((2, 2, *size, 3))
    difference = np.fft.rfft2(restored, axes=(1, 2)) - np.fft.rfft2(sharp, axes=(1, 2))
    expected = np.sqrt((restored - sharp) ** 2 + 1e-6).mean()
    expected += 0.1 * np.abs(np.stack([difference.real, difference.imag])).mean()
    as_float = [jnp.asarray(x, jnp.float32) for x in (restored, sharp)]
    loss, gradient = jax.value_and_grad(LOSSES["charbonnier_frequency"])(*as_float)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_charbonnier_frequency_counts_large_areas():
    # A difference of 0.1 in all of 16x16 pixels is 25.6 at the frequency 0, and none elsewhere.
    sharp = jnp.full((1, 16, 16, 3), 0.5)
    loss = LOSSES["charbonnier_frequency"](sharp + 0.1, sharp)
    expected = (0.1**2 + 1e-6) ** 0.5 + 0.1 * 25.6 / (16 * 9) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_ssim_l1_is_scikit_images_similarity_and_the_mean_difference(reference_ssim):
    rng = np.random.default_rng(0)
    sharp = rng.random((2, 16, 20, 3))
    restored = 0.8 * sharp + 0.3 * rng.random(sharp.shape) - 0.02  # also outside [0, 1]

    def expected(restored):
        similarities = [reference_ssim(*images) for images in zip(sharp, restored, strict=True)]
        return 0.84 * (1 - np.mean(similarities)) + 0.16 * np.abs(restored - sharp).mean()

    as_float = [jnp.asarray(x, jnp.float32) for x in (restored, sharp)]
    loss, gradient = jax.value_and_grad(LOSSES["ssim_l1"])(*as_float)
    np.testing.assert_allclose(loss, expected(restored), rtol=1e-4)
    for _ in range(5):
        direction = rng.choice([-1.0, 1.0], sharp.shape)
        rise = (
            expected(restored + 1e-5 * direction) - expected(restored - 1e-5 * direction)
        ) / 2e-5
        np.testing.assert_allclose((gradient * direction).sum(), rise, atol=2e-4, rtol=2e-2)


def test_ssim_l1_of_equal_images_is_zero():
    image = jax.random.uniform(jax.random.key(0), (1, 12, 12, 3))
    loss, gradient = jax.value_and_grad(LOSSES["ssim_l1"])(image, image)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    assert np.isfinite(gradient).all()
    flat = jnp.full((1, 12, 12, 3), 0.5)  # where nothing varies
    assert np.isfinite(jax.grad(LOSSES["ssim_l1"])(flat, flat)).all()


def test_charbonnier_of_equal_images_is_its_epsilon_with_no_gradient():
    loss, gradient = jax.value_and_grad(LOSSES["charbonnier"])(SHARP, SHARP)
    np.testing.assert_allclose(loss, 1e-3, rtol=1e-5)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(SHARP))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1", [1 / 6, -1 / 6, None, None, 1 / 6, -1 / 6]),
        ("mse", [0.5 / 6, -1.0 / 6, 0, 0, 1.5 / 6, -1.0 / 6]),
    ],
)
def test_gradient_is_the_derivative_by_hand(name, expected):
    gradient = jax.grad(LOSSES[name])(RESTORED, SHARP).ravel()
    for value, wanted in zip(gradient, expected, strict=True):
        if wanted is not None:  # an absolute value has no derivative at 0
            np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-9)
