"""Triplets made of photographs: a camera moves past one while its shutter opens three times.

As REDS was made (Nah et al., CVPRW 2019), where frames of a quick camera were averaged in the light
that its response tells: what the shutter lets in is summed as light, and becomes a picture after.
The photograph is as the camera sees it in the middle of the second exposure. Nothing moves but the
camera, and it moves without turning or nearing.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from jaxdeblur.data.degrade import path_kernel, random_path, to_linear
from jaxdeblur.errors import InputError

MARGIN = 24  # pixels that the camera moves away from the middle, at most

_POINTS = 40  # of the path, from one frame to the next
_LENGTHS = (0.3, 13.0)  # pixels of the path from one frame to the next
_TURNS = (0.002, 0.1)  # radians between two points of the path
_SHUTTER = (0.6, 1.0)  # share of the time that it is open; REDS: nearly always
_HIGHEST = 250  # level; whatever saturates the sensor was counted among the ones above


@dataclasses.dataclass(frozen=True)
class Response:
    """How a camera makes levels of light.

    Attributes:
      light: float32 `[256, 3]`, the light of each level of red, green and blue; it never falls, and
        its unit is arbitrary.
    """

    light: np.ndarray

    def to_light(self, image: np.ndarray) -> np.ndarray:
        """uint8 `[..., 3]` to float32."""
        return np.stack([self.light[image[..., c], c] for c in range(3)], axis=-1)

    def to_image(self, light: np.ndarray) -> np.ndarray:
        """Float `[..., 3]` to uint8, the nearest level in between; what lies outside is clipped."""
        levels = [np.interp(light[..., c], self.light[:, c], np.arange(256)) for c in range(3)]
        return np.rint(np.stack(levels, axis=-1)).astype(np.uint8)


def read_response(path: str | os.PathLike[str]) -> Response:
    """Reads an inverse response as the authors of REDS publish theirs.

    Args:
      path: a `.npy` file of floats `[256, 1, 3]`, of blue, green and red.

    Raises:
      InputError: no such file, or of other shape or values.
    """
    path = Path(path).expanduser()
    try:
        inverse = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"camera_response = {str(path)!r} cannot be read ({error})") from error
    if inverse.shape != (256, 1, 3) or inverse.dtype.kind != "f" or not np.isfinite(inverse).all():
        raise InputError(
            f"camera_response = {str(path)!r} has {inverse.dtype} {inverse.shape}; it needs finite "
            "floats [256, 1, 3], of blue, green and red"
        )
    # As measured it falls here and there by a hair, which has no inverse; and white is given so
    # much light (44, where 250 has 9) that everything near the sky would turn white.
    light = np.maximum.accumulate(inverse[:, 0, ::-1].astype(np.float32), axis=0)
    step = (light[_HIGHEST] - light[_HIGHEST - 10]) / 10
    above = np.arange(1, 256 - _HIGHEST, dtype=np.float32)[:, None]
    light[_HIGHEST + 1 :] = light[_HIGHEST] + step * above
    return Response(light)


def srgb_response() -> Response:
    """The response of a camera that makes sRGB as the standard (IEC 61966-2-1) has it."""
    return Response(np.repeat(to_linear(np.arange(256, dtype=np.uint8))[:, None], 3, axis=1))


@dataclasses.dataclass(frozen=True)
class CameraMotion:
    """Makes the three blurred frames of a patch of a photograph.

    Attributes:
      response: of the camera.
      brightness: largest change of brightness, of values in [0, 1]; made on the device.
    """

    response: Response
    brightness: float
    margin: ClassVar[int] = MARGIN

    def __call__(
        self, patch: np.ndarray, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns what `TripletSample` does, of uint8 `[P + 2 * MARGIN, P + 2 * MARGIN, 3]`."""
        del index
        frames = expose(self.response.to_light(patch), random_exposures(rng))
        sharp = patch[MARGIN:-MARGIN, MARGIN:-MARGIN]
        return {
            "blurred": np.concatenate([self.response.to_image(f) for f in frames], axis=-1),
            "sharp": np.ascontiguousarray(sharp),
            "brightness": np.asarray(rng.uniform(-self.brightness, self.brightness), np.float32),
        }


def random_exposures(rng: np.random.Generator) -> list[np.ndarray]:
    """Draws a camera's motion.

    Returns:
      For the previous, this and the next frame, where the scene is while the shutter is open:
      float `[N, 2]`, rows and columns in pixels from where it is in the middle of this frame.
    """
    length = rng.uniform(*_LENGTHS)
    turn = np.exp(rng.uniform(*np.log(_TURNS)))
    path = random_path(3 * length, turn, 3 * _POINTS, rng)
    middle = path[3 * _POINTS // 2 - 1 : 3 * _POINTS // 2 + 1].mean(0)
    closed = round((1 - rng.uniform(*_SHUTTER)) * _POINTS / 2)  # points before and after
    frames = (path - middle).reshape(3, _POINTS, 2)
    return [frame[closed : _POINTS - closed] for frame in frames]


def expose(light: np.ndarray, exposures: list[np.ndarray]) -> list[np.ndarray]:
    """Sums the light of a moving scene.

    Args:
      light: float32 `[H + 2 * MARGIN, W + 2 * MARGIN, 3]`.
      exposures: of each frame, where the scene is, see `random_exposures`; at most `MARGIN` pixels
        from the middle, further ones count as there.

    Returns:
      For each frame float32 `[H, W, 3]`.
    """
    # A convolution each, that share the transform of the scene. Circular, but what comes round
    # the ends stays in the margin.
    shape = light.shape[:2]
    spectrum = np.fft.rfft2(light, axes=(0, 1))
    frames = []
    for places in exposures:
        kernel = np.fft.rfft2(path_kernel(places, MARGIN), shape)
        summed = np.fft.irfft2(spectrum * kernel[..., None], shape, axes=(0, 1))
        # The kernel's centre lies at MARGIN, so the picture has moved there.
        frames.append(summed[2 * MARGIN :, 2 * MARGIN :])
    return frames
