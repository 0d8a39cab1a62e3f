"""A camera's blur, noise and JPEG, against OpenCV and hand computation."""

import cv2
import numpy as np
import pytest

from jaxdeblur.configs import atrous_photos
from jaxdeblur.data import degrade, photos, pipeline
from jaxdeblur.data.blur import make_pair
from jaxdeblur.errors import InputError
from jaxdeblur.pixels import from_float

M = degrade.MARGIN
SIDE = 2 * M + 1


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(*shape):
    return rng().integers(0, 256, shape, np.uint8)


def moments(kernel):
    """Mean and covariance of a kernel's mass, in pixels from its centre."""
    points = np.stack(np.meshgrid(*[np.arange(SIDE) - M] * 2, indexing="ij"), -1).reshape(-1, 2)
    mass = kernel.reshape(-1)
    mean = mass @ points
    return mean, (points - mean).T @ ((points - mean) * mass[:, None])


@pytest.mark.parametrize("sigma", [0.5, 1.7, 3.2])
def test_gaussian_kernel_is_that_of_opencv(sigma):
    line = cv2.getGaussianKernel(SIDE, sigma)
    kernel = degrade.gaussian_kernel(sigma, sigma, 0.3)
    np.testing.assert_allclose(kernel, line @ line.T, atol=1e-6)


def test_gaussian_kernel_lies_along_its_angle():
    _, covariance = moments(degrade.gaussian_kernel(3, 1.5, np.pi / 6))
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(values, [1.5**2, 3**2], rtol=1e-2)
    row, column = vectors[:, 1]
    assert abs(row / column - np.tan(np.pi / 6)) < 1e-2


@pytest.mark.parametrize("radius", [1.0, 2.5, 4.5])
def test_defocus_kernel_is_a_disk(radius):
    kernel = degrade.defocus_kernel(radius)
    _, covariance = moments(kernel)
    # A disk's variance along an axis; a pixel adds its own, 1/12.
    np.testing.assert_allclose(np.diag(covariance), radius**2 / 4 + 1 / 12, rtol=0.1)
    np.testing.assert_allclose(kernel[M, M], 1 / (np.pi * radius**2), rtol=0.1)
    assert kernel[M, M + int(radius) + 2] == 0


def test_no_blur_is_a_single_pixel():
    kernel = degrade.still_kernel("none", rng())
    assert kernel[M, M] == kernel.sum() == 1


def test_motion_kernel_is_a_path_around_the_centre():
    for seed in range(50):
        kernel = degrade.motion_kernel(12.0, 0.05, rng(seed))
        mean, covariance = moments(kernel)
        np.testing.assert_allclose(mean, 0, atol=1e-3)
        assert kernel.min() >= 0
        # As far from end to end as it is long, at most; and long where it hardly turns.
        assert np.sqrt(np.linalg.eigvalsh(covariance)[1]) < 12 / 2
    straight = degrade.motion_kernel(12.0, 0.0, rng())
    values = np.linalg.eigvalsh(moments(straight)[1])
    assert values[0] < 0.5
    assert values[1] > 2.5**2


@pytest.mark.parametrize("kind", ["none", "gaussian", "motion", "defocus"])
def test_kernels_neither_darken_nor_brighten(kind):
    for seed in range(20):
        moves = kind == "motion"
        random = rng(seed)
        kernel = (
            degrade.random_motion(degrade.Camera(), random)
            if moves
            else degrade.still_kernel(kind, random)
        )
        assert kernel.shape == (SIDE, SIDE)
        np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("limit", [0, 30, 180])
def test_motions_begin_within_an_angle_of_the_horizontal(limit):
    camera = degrade.Camera(
        motion_angle=limit, shortest_motion=12, longest_motion=12, largest_turn=0.002
    )
    angles = []
    for seed in range(60):
        _, covariance = moments(degrade.random_motion(camera, rng(seed)))
        rows, columns = np.linalg.eigh(covariance)[1][:, 1]
        angles.append(np.degrees(np.arctan2(abs(rows), abs(columns))))
    expected = min(limit, 90)
    assert 0.8 * expected <= max(angles) <= expected + 2


def test_photographs_are_spoiled_as_often_as_the_camera_says():
    sharp = noise(8 + 2 * M, 8 + 2 * M, 3)
    inside = sharp[M:-M, M:-M]
    never = degrade.Camera(motion_share=0, clean_share=1)
    same = [np.array_equal(degrade.degrade(sharp, rng(i), never)[0], inside) for i in range(200)]
    assert 0.13 < np.mean(same) < 0.29  # without blur; every other kernel changes noise
    always = degrade.Camera(motion_share=1, shortest_motion=5)
    assert not any(
        np.array_equal(degrade.degrade(sharp, rng(i), always)[0], inside) for i in range(50)
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("motion_share", 1.5),
        ("clean_share", -0.1),
        ("motion_angle", 200.0),
        ("shortest_motion", 30.0),
        ("longest_motion", 41.0),
        ("largest_turn", float("nan")),
    ],
)
def test_a_camera_that_cannot_be_names_the_field(name, value):
    with pytest.raises(InputError, match=f"camera.{name} = {value}"):
        degrade.Camera(**{name: value})


def test_blur_is_a_convolution():
    image = rng().random((50, 60, 3), np.float32)
    kernel = degrade.motion_kernel(9, 0.2, rng(3))
    flipped = cv2.filter2D(image, -1, kernel[::-1, ::-1])[M:-M, M:-M]
    np.testing.assert_allclose(degrade.blur(image, kernel), flipped, atol=1e-5)


def test_srgb_has_its_standard_values():
    levels = np.array([0, 10, 128, 188, 255], np.uint8)
    expected = [0, 10 / 255 / 12.92, ((128 / 255 + 0.055) / 1.055) ** 2.4, 0.5029, 1]
    np.testing.assert_allclose(degrade.to_linear(levels), expected, atol=1e-4)
    every = np.arange(256, dtype=np.uint8)
    back = from_float(degrade.to_encoded(degrade.to_linear(every)), np.uint8)
    np.testing.assert_array_equal(back, every)


def test_noise_grows_with_the_light():
    light = np.full((100, 200, 3), 0.01, np.float32)
    light[:, 100:] = 0.9
    deviations = []
    for seed in range(10):
        spoiled = degrade.add_noise(light, rng(seed)) - light
        deviations.append([spoiled[:, :100].std(), spoiled[:, 100:].std()])
    dark, bright = np.mean(deviations, axis=0)
    assert dark < bright < 0.03
    assert abs(spoiled.mean()) < 1e-3


def test_compression_is_jpeg():
    image = cv2.GaussianBlur(noise(64, 64, 3), (0, 0), 2)
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    expected = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1]
    difference = degrade.compress(image, 80).astype(int) - expected
    assert np.abs(difference).mean() < 1
    errors = [np.abs(degrade.compress(image, q).astype(int) - image).mean() for q in (60, 80, 97)]
    assert errors == sorted(errors, reverse=True)


def test_a_share_is_left_as_it_is_and_nothing_moves():
    # A bright square on black: its centre of mass, in what was blurred, must not move.
    sharp = np.zeros((80 + 2 * M, 88 + 2 * M, 3), np.uint8)
    sharp[M + 35 : M + 45, M + 39 : M + 49] = 200
    inside = sharp[M:-M, M:-M]
    same, kinds = 0, set()
    for seed in range(300):
        blurred, target = degrade.degrade(sharp, rng(seed))
        assert blurred.shape == target.shape == inside.shape
        assert blurred.dtype == target.dtype == np.uint8
        same += np.array_equal(blurred, inside)
        shifts = []
        for values, noise_level in ((degrade.to_linear(blurred), 0.01), (blurred / 255.0, 0.08)):
            values = np.where(values < noise_level, 0, values)[..., 1].astype(float)
            lines = values.sum(1), values.sum(0)
            centre = [line @ np.arange(len(line)) / line.sum() for line in lines]
            shifts.append(np.abs(np.subtract(centre, [39.5, 43.5])).max())
        assert min(shifts) < 0.8
        kinds.add(int(degrade.to_linear(blurred).max() * 10))
    assert 0.05 < same / 300 < 0.25
    assert len(kinds) > 3
    np.testing.assert_array_equal(degrade.degrade(sharp, rng(7)), degrade.degrade(sharp, rng(7)))


def test_an_enlarged_photograph_is_its_middle():
    coarse = noise(20 + 2 * M, 30 + 2 * M, 3)
    smooth = cv2.GaussianBlur(coarse, (0, 0), 3)
    larger = degrade.enlarge(smooth, 2.0)
    assert larger.shape == smooth.shape
    height, width = (size // 4 for size in smooth.shape[:2])
    middle = smooth[height : 3 * height, width : 3 * width]
    size = (2 * middle.shape[1], 2 * middle.shape[0])
    expected = cv2.resize(middle, size, interpolation=cv2.INTER_CUBIC)
    inside = slice(4, 2 * middle.shape[0] - 4), slice(4, 2 * middle.shape[1] - 4)
    difference = larger[: size[1], : size[0]].astype(int) - expected
    assert np.abs(difference[inside]).mean() < 1.5
    np.testing.assert_array_equal(degrade.enlarge(smooth, 1.0), smooth)


def test_training_gets_pairs_of_the_same_place():
    config = atrous_photos.get_config()
    config.dataset = "skimage"
    config.batch_size = 4
    source = photos.skimage_photos("train")
    batch = next(pipeline.training_batches(config, source))
    assert {name: x.shape for name, x in batch.items()} == {
        "sharp": (4, 96, 96, 3),
        "blurred": (4, 96, 96, 3),
        "index": (4,),
    }
    blurred, sharp = make_pair(batch, 3.0)
    np.testing.assert_array_equal(np.rint(blurred * 255), batch["blurred"])
    np.testing.assert_array_equal(np.rint(sharp * 255), batch["sharp"])
    for one, other in zip(batch["blurred"], batch["sharp"], strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.5
