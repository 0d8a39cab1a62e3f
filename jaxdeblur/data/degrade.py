"""How a camera spoils a photograph: blur in linear light, noise, JPEG.

Images are uint8 `[H, W, 3]` sRGB. Works on one image at a time, on the host: JPEG has no place on
an accelerator, and a kernel of its own for each image no quick batched form.

A share of the photographs stays as it is: a network that sees damaged ones only learns to sharpen
everything, sharp pictures too.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from scipy import signal

from jaxdeblur.data.source import Sample
from jaxdeblur.errors import InputError
from jaxdeblur.pixels import from_float

MARGIN = 20  # pixels, the radius of the largest kernel

_STILL = {"none": 0.21, "gaussian": 0.65, "defocus": 0.14}  # shares where nothing moves
_ENCODED_SHARE = 0.6  # of the blurs: made of the encoded values, not of the light

_GAUSSIAN_SIGMAS = (0.3, 3.2)  # pixels
_DEFOCUS_RADII = (0.7, 4.5)  # pixels
_MOTION_POINTS = 80
_SMALLEST_TURN = 0.002  # radians between two points of the path
_READ_NOISE = 0.01  # standard deviation at most, of 1, in linear light
_SHOT_NOISE = 0.02  # the same for a white pixel
_JPEG_QUALITIES = (60, 97)


@dataclasses.dataclass(frozen=True)
class Camera:
    """How often a photograph is spoiled, and by which motion.

    Attributes:
      motion_share: of the photographs, those with blur of motion.
      motion_angle: the most that a motion is off the horizontal when it begins, in degrees. A
        network that has seen none learns motion in one direction in minutes, and in every
        direction, which 180 stands for, hardly at all; see configs/atrous_motion.py.
      shortest_motion: in pixels along the path. As many motions are shorter as longer than the
        geometric mean of the shortest and the longest.
      longest_motion: in pixels along the path.
      largest_turn: standard deviation of the turn between two of the path's 80 points, in radians.
      largest_enlargement: how many times a photograph with blur of motion is enlarged at most; see
        `enlarge`.
      clean_share: of the photographs, those with neither noise nor JPEG.

    Raises:
      InputError: a share outside [0, 1], a length, angle or turn that makes no path, or an
        enlargement outside [1, 8].
    """

    motion_share: float = 0.43
    motion_angle: float = 180.0
    shortest_motion: float = 1.5
    longest_motion: float = 20.0
    largest_turn: float = 0.1
    largest_enlargement: float = 2.0
    clean_share: float = 0.7

    def __post_init__(self):
        check_bounds(
            self,
            "camera",
            ("motion_share", 0, 1),
            ("motion_angle", 0, 180),
            ("shortest_motion", 0.1, self.longest_motion),
            ("longest_motion", self.shortest_motion, 2 * MARGIN),
            ("largest_turn", _SMALLEST_TURN, np.pi),
            ("largest_enlargement", 1, 8),
            ("clean_share", 0, 1),
        )


def check_bounds(record: Any, key: str, *bounds: tuple[str, float, float]) -> None:
    """Raises InputError, naming `key` and the field, unless each is between its two bounds."""
    for name, low, high in bounds:
        value = getattr(record, name)
        if not low <= value <= high:
            raise InputError(f"{key}.{name} = {value!r} must be from {low:g} to {high:g}")


@dataclasses.dataclass(frozen=True)
class CameraBlur:
    """Spoils a patch at random as cameras do; the blur needs a margin around it."""

    camera: Camera
    margin: ClassVar[int] = MARGIN

    def __call__(self, patch: np.ndarray, index: int, rng: np.random.Generator) -> Sample:
        """Returns `blurred` and `sharp`, uint8 `[P, P, 3]`, of a patch with its margin."""
        del index
        blurred, sharp = degrade(patch, rng, self.camera)
        return {"sharp": np.ascontiguousarray(sharp), "blurred": np.ascontiguousarray(blurred)}


def degrade(
    photo: np.ndarray, rng: np.random.Generator, camera: Camera | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Spoils one photograph at random.

    Args:
      photo: uint8 `[H + 2 * MARGIN, W + 2 * MARGIN, 3]`.
      rng: decides on everything.
      camera: how often, and by what; by default `Camera()`.

    Returns:
      The blurred and the sharp photograph without the margin, uint8 `[H, W, 3]`.
    """
    camera = camera or Camera()
    if rng.random() < camera.motion_share:
        photo = enlarge(photo, rng.uniform(1, camera.largest_enlargement))
        kernel = random_motion(camera, rng)
    else:
        kernel = still_kernel(str(rng.choice(list(_STILL), p=list(_STILL.values()))), rng)
    blurred = spoil(photo, kernel, rng.random() < camera.clean_share, rng)
    return blurred, photo[MARGIN:-MARGIN, MARGIN:-MARGIN]


def spoil(
    sharp: np.ndarray, kernel: np.ndarray, clean: bool, rng: np.random.Generator
) -> np.ndarray:
    """What a camera makes of a photograph with one kernel; sizes as in `degrade`."""
    # As software blurs and shrinks, and as frames of a video are averaged.
    encoded = rng.random() < _ENCODED_SHARE
    light = sharp / np.float32(255) if encoded else to_linear(sharp)
    light = blur(light, kernel)
    image = from_float(light if encoded else to_encoded(light), np.uint8)
    if clean:
        return image
    noisy = add_noise(to_linear(image), rng)
    return compress(from_float(to_encoded(noisy), np.uint8), int(rng.integers(*_JPEG_QUALITIES)))


def enlarge(photo: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a photograph, as large as the whole of it.

    Frames of a video, and the pixels of a large photograph, are less sharp than those of a small
    one; where blur is told by its direction, a network may know.
    """
    height, width = photo.shape[:2]
    rows, columns = height * (1 - 1 / factor) / 2, width * (1 - 1 / factor) / 2
    box = (columns, rows, width - columns, height - rows)
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC, box))


def still_kernel(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Returns a kernel of "none", "gaussian" or "defocus".

    Like all kernels here float32 `[2 * MARGIN + 1, 2 * MARGIN + 1]`, of sum 1.
    """
    match kind:
        case "gaussian":
            sigma = rng.uniform(*_GAUSSIAN_SIGMAS)
            ratio = rng.uniform(0.5, 1) if rng.random() < 0.3 else 1.0
            return gaussian_kernel(sigma, sigma * ratio, rng.uniform(0, np.pi))
        case "defocus":
            return defocus_kernel(rng.uniform(*_DEFOCUS_RADII))
    return defocus_kernel(0)


def random_motion(camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Returns the kernel of a motion that a camera makes."""
    turn = np.exp(rng.uniform(*np.log((_SMALLEST_TURN, camera.largest_turn))))
    length = np.exp(rng.uniform(*np.log((camera.shortest_motion, camera.longest_motion))))
    return motion_kernel(length, turn, rng, camera.motion_angle)


def gaussian_kernel(sigma: float, across: float, angle: float) -> np.ndarray:
    """A Gaussian with one standard deviation along `angle` and another across it, in pixels."""
    y, x = _grid(1)
    along = x * np.cos(angle) + y * np.sin(angle)
    side = y * np.cos(angle) - x * np.sin(angle)
    return _normalise(np.exp(-0.5 * ((along / sigma) ** 2 + (side / across) ** 2)))


def defocus_kernel(radius: float, finer: int = 5) -> np.ndarray:
    """The image of a point out of focus: a disk, each pixel the share that the disk covers."""
    y, x = _grid(finer)
    covered = (x**2 + y**2 <= max(radius, 0.5 / finer) ** 2).astype(np.float32)
    side = 2 * MARGIN + 1
    return _normalise(covered.reshape(side, finer, side, finer).sum((1, 3)))


def motion_kernel(
    length: float, turn: float, rng: np.random.Generator, angle: float = 180.0
) -> np.ndarray:
    """The path of a point while the shutter is open; see `random_path` for the arguments."""
    path = random_path(length, turn, _MOTION_POINTS, rng, angle)
    # The middle of its mass on the central pixel: blur shall not move the picture.
    return path_kernel(path - path.mean(0), MARGIN)


def random_path(
    length: float, turn: float, num_points: int, rng: np.random.Generator, angle: float = 180.0
) -> np.ndarray:
    """Draws the path of a camera in a hand: it turns and changes its speed a little at every point.

    Args:
      length: of the path, in pixels.
      turn: standard deviation of the turn between two of its points, in radians.
      num_points: how many points, equally far apart in time.
      rng: draws the path.
      angle: between its beginning and the horizontal at most, in degrees; 180: any.

    Returns:
      float `[num_points, 2]`, rows and columns.
    """
    turns = rng.normal(0, turn, num_points)
    heading = np.deg2rad(rng.uniform(-angle, angle)) + np.cumsum(turns)
    speeds = np.exp(np.cumsum(rng.normal(0, 0.1, num_points)))
    steps = np.stack([np.sin(heading), np.cos(heading)], axis=1) * speeds[:, None]
    return np.cumsum(steps * length / speeds.sum(), axis=0)


def path_kernel(path: np.ndarray, radius: int) -> np.ndarray:
    """The kernel of a point that moves, float32 `[2 * radius + 1, 2 * radius + 1]`, of sum 1.

    Args:
      path: `[N, 2]`, its places at equal times, rows and columns in pixels from the centre; the
        ones outside are moved to the border.
      radius: of the kernel, in pixels.
    """
    path = np.clip(path, -radius + 0.001, radius - 0.001) + radius
    kernel = np.zeros((2 * radius + 1,) * 2, np.float32)
    corner = np.floor(path).astype(int)
    share = path - corner
    for row in range(2):
        for column in range(2):
            weight = np.abs(1 - row - share[:, 0]) * np.abs(1 - column - share[:, 1])
            np.add.at(kernel, (corner[:, 0] + row, corner[:, 1] + column), weight)
    return _normalise(kernel)


def blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolves float32 `[H + 2 * MARGIN, W + 2 * MARGIN, 3]`; returns `[H, W, 3]`."""
    return signal.fftconvolve(image, kernel[..., None], mode="valid", axes=(0, 1))


def add_noise(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds the noise of the electronics, and that of the photons, which grows with the light."""
    read, shot = rng.uniform(0, _READ_NOISE), rng.uniform(0, _SHOT_NOISE)
    deviation = np.sqrt(read**2 + shot**2 * np.clip(light, 0, 1))
    return light + deviation * rng.standard_normal(light.shape, np.float32)


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """Returns what is left of uint8 `[H, W, 3]` after JPEG of that quality, 1 to 100."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def to_linear(image: np.ndarray) -> np.ndarray:
    """uint8 sRGB to float32 linear light in [0, 1] (IEC 61966-2-1)."""
    return _LINEAR[image]


def to_encoded(light: np.ndarray) -> np.ndarray:
    """Linear light to sRGB, both in [0, 1]; what lies outside is clipped."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _linear_of_every_level() -> np.ndarray:
    encoded = np.arange(256) / 255
    power = ((encoded + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, power).astype(np.float32)


_LINEAR = _linear_of_every_level()


def _grid(finer: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a kernel's points around its centre, in pixels."""
    points = (np.arange((2 * MARGIN + 1) * finer) + 0.5) / finer - MARGIN - 0.5
    return points[:, None], points[None, :]


def _normalise(kernel: np.ndarray) -> np.ndarray:
    return (kernel / kernel.sum()).astype(np.float32)
