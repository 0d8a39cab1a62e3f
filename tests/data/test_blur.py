import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data

from jaxdeblur.data.blur import (
    gaussian_blur,
    gaussian_kernel,
    kernel_radius,
    make_pair,
    stratified_sigmas,
)

SIGMAS = np.linspace(0, 3, 151)[1:].astype(np.float32)

blur = jax.jit(gaussian_blur, static_argnums=2)
kernel = jax.jit(gaussian_kernel, static_argnums=1)


def opencv(image, sigma):
    return cv2.GaussianBlur(image, (0, 0), float(sigma)).reshape(image.shape)


def assert_opencv(image, sigmas, max_sigma=3.0):
    batch = np.broadcast_to(image, (len(sigmas), *image.shape))
    blurred = np.asarray(blur(batch, sigmas, max_sigma))
    assert blurred.dtype == np.uint8
    expected = np.stack([opencv(image, sigma) for sigma in sigmas])
    difference = np.abs(blurred.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() >= 0.999


@pytest.mark.parametrize("shape", [(29, 33, 3), (10, 21, 3), (24, 10, 1)], ids=str)
def test_noise_is_blurred_as_by_opencv(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert_opencv(image, SIGMAS)


@pytest.mark.parametrize("name", ["astronaut", "chelsea"])
def test_photographs_are_blurred_as_by_opencv(name):
    photograph = getattr(skimage.data, name)()
    assert_opencv(photograph[100:141, 200:235], SIGMAS)


def test_grey_photograph_is_blurred_as_by_opencv():
    assert_opencv(skimage.data.camera()[100:141, 200:235, None], SIGMAS)


@pytest.mark.parametrize("image", [np.full((12, 12, 3), 255), np.zeros((12, 12, 3))])
def test_flat_images_stay_as_they_are(image):
    image = image.astype(np.uint8)
    blurred = blur(np.broadcast_to(image, (150, 12, 12, 3)), SIGMAS, 3.0)
    assert (np.asarray(blurred) == image).all()


@pytest.mark.parametrize("max_sigma", [0.5, 1.5, 6.0])
def test_any_bound_above_sigma_gives_the_same_blur(max_sigma):
    image = skimage.data.chelsea()[100:139, 200:240]
    assert_opencv(image, np.linspace(0, max_sigma, 20)[1:].astype(np.float32), max_sigma)


def test_each_image_gets_its_own_sigma():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    sigmas = np.array([2.5, 0.0, 0.8], np.float32)
    blurred = np.asarray(blur(images, sigmas, 3.0))
    np.testing.assert_array_equal(blurred[0], opencv(images[0], 2.5))
    np.testing.assert_array_equal(blurred[1], images[1])
    np.testing.assert_array_equal(blurred[2], opencv(images[2], 0.8))


def test_no_blur_leaves_images_unchanged():
    images = np.random.default_rng(0).integers(0, 256, (2, 15, 11, 3), np.uint8)
    np.testing.assert_array_equal(blur(images, np.zeros(2, np.float32), 3.0), images)


def test_weakest_blurs_leave_images_unchanged_as_in_opencv():
    image = np.random.default_rng(0).integers(0, 256, (15, 11, 3), np.uint8)
    unchanged = [(opencv(image, sigma) == image).all() for sigma in SIGMAS]
    batch = np.broadcast_to(image, (len(SIGMAS), *image.shape))
    blurred = np.asarray(blur(batch, SIGMAS, 3.0))
    assert [(x == image).all() for x in blurred] == unchanged
    assert 0.05 < np.mean(unchanged) < 0.15


def test_kernels_are_symmetric_integers_that_sum_to_256():
    sigmas = np.linspace(0, 3, 601).astype(np.float32)
    kernels = np.asarray(kernel(sigmas, 9))
    assert kernels.shape == (601, 19)
    np.testing.assert_array_equal(kernels.sum(-1), 256)
    np.testing.assert_array_equal(kernels, np.round(kernels))
    np.testing.assert_array_equal(kernels, kernels[:, ::-1])
    assert (kernels >= 0).all()


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.7, 3.0])
def test_kernel_is_within_rounding_of_the_gaussian(sigma):
    size = round(6 * sigma + 1) | 1
    expected = np.zeros(19)
    expected[9 - size // 2 : 10 + size // 2] = cv2.getGaussianKernel(size, sigma)[:, 0] * 256
    # Errors of each side are carried to the centre.
    error = np.abs(np.asarray(kernel(np.float32(sigma), 9)) - expected)
    assert np.delete(error, 9).max() <= 1
    assert error[9] <= 2


@pytest.mark.parametrize(("sigma", "radius"), [(0, 0), (0.3, 1), (0.5, 2), (1, 3), (3, 9)])
def test_radius_is_that_of_opencvs_automatic_kernel(sigma, radius):
    assert kernel_radius(sigma) == radius


def test_pair_is_blurred_and_sharp_in_the_unit_range():
    sharp = np.random.default_rng(0).integers(0, 256, (2, 16, 12, 3), np.uint8)
    batch = {"sharp": jnp.asarray(sharp), "sigma": jnp.array([1.0, 2.0])}
    blurred, target = jax.jit(make_pair, static_argnums=1)(batch, 3.0)
    assert blurred.dtype == target.dtype == jnp.float32
    np.testing.assert_allclose(target, sharp / 255, atol=1e-7)
    expected = np.stack([opencv(sharp[0], 1.0), opencv(sharp[1], 2.0)])
    np.testing.assert_allclose(blurred, expected / 255, atol=1e-7)


def test_blurred_frames_are_made_brighter_with_the_sharp_one():
    rng = np.random.default_rng(0)
    blurred, sharp = (rng.integers(0, 256, (2, 6, 5, c), np.uint8) for c in (9, 3))
    batch = {"blurred": blurred, "sharp": sharp, "brightness": np.array([0.25, -0.25], np.float32)}
    change = np.array([0.25, -0.25]).reshape(2, 1, 1, 1)
    for result, given in zip(jax.jit(make_pair)(batch, 3.0), (blurred, sharp), strict=True):
        np.testing.assert_allclose(result, np.clip(given / 255 + change, 0, 1), atol=1e-6)


def test_a_bound_of_zero_is_no_blur():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    np.testing.assert_array_equal(blur(images, np.zeros(2, np.float32), 0.0), images)


# Sigmas.


@pytest.mark.parametrize("repeats", [1, 2, 16])
def test_each_repeat_draws_from_its_own_part(repeats):
    drawn = stratified_sigmas(200, repeats, (0.0, 3.0), seed=5)
    assert drawn.shape == (repeats, 200)
    assert drawn.dtype == np.float32
    width = 3.0 / repeats
    for r, row in enumerate(drawn):
        assert (row >= np.float32(r * width)).all()
        assert (row <= np.float32((r + 1) * width)).all()
        # Uniform: the quarters of 200 values hold about 50 each.
        quarters = np.histogram(row, 4, (r * width, (r + 1) * width))[0]
        assert (abs(quarters - 50) < 25).all()


def test_repeats_draw_independently():
    drawn = stratified_sigmas(500, 2, (0.0, 2.0), seed=0) - np.array([[0], [1]])
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.15


def test_sigmas_are_a_function_of_the_seed():
    first = stratified_sigmas(50, 3, (0.0, 3.0), seed=1)
    np.testing.assert_array_equal(first, stratified_sigmas(50, 3, (0.0, 3.0), seed=1))
    assert (first != stratified_sigmas(50, 3, (0.0, 3.0), seed=2)).all()


def test_sigma_of_an_image_does_not_depend_on_how_many_follow():
    many = stratified_sigmas(100, 4, (0.0, 3.0), seed=1)
    for count in (1, 7, 99):
        few = stratified_sigmas(count, 4, (0.0, 3.0), seed=1)
        np.testing.assert_array_equal(few, many[:, :count])
