"""Samples of sharp images: a patch, blurred on its way or inside the step.

Training takes a random patch, evaluation the central one. Every random choice is a function of the
seed and of the sample's number, so a run is repeated exactly.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from jaxdeblur.data.blur import GaussianBlur, stratified_sigmas
from jaxdeblur.data.degrade import Camera, CameraBlur
from jaxdeblur.data.scenes import Scene, SceneBlur
from jaxdeblur.data.source import EvaluationSample, Sample, TrainingSample
from jaxdeblur.pixels import reflected

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class PatchBlur(Protocol):
    """Blurs a patch, or says how it is to be blurred.

    Attributes:
      margin: pixels around the patch that it needs, and takes away.
    """

    margin: ClassVar[int]

    def __call__(self, patch: np.ndarray, index: int, rng: np.random.Generator) -> Sample: ...


class SharpImages(abc.ABC):
    """A source of sharp uint8 `[H, W, 3]` images; see `source.Source`."""

    num_frames: int = 1

    name: str
    title: str
    labels: list[str]

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int) -> np.ndarray: ...

    @abc.abstractmethod
    def smallest_size(self) -> tuple[int, int, str]: ...

    def training_sample(self, config: ConfigDict) -> TrainingSample:
        """A random patch, flipped and turned, with the configured blur."""
        blur = _training_blur(config, len(self))
        return PatchSample(self, blur, config.patch_size, config.flip, config.rotate)

    def evaluation_sample(self, config: ConfigDict) -> EvaluationSample:
        """The central patch, with Gaussian blur of the repeat's part of the range."""
        bounds = (config.min_sigma, config.max_sigma)
        sigmas = stratified_sigmas(len(self), config.eval_repeats, bounds, config.seed + 1)

        def sample(index: int, repeat: int) -> Sample:
            sharp = _centre(self[index], config.eval_patch_size)
            return {"sharp": sharp, "sigma": sigmas[repeat, index]}

        return sample

    def whole_sample(self, index: int) -> Sample:
        raise NotImplementedError(f"{self.name} has no blurred images to measure whole")

    def protocol(self, config: ConfigDict) -> str:
        """See `source.Source`."""
        low, high, repeats = config.min_sigma, config.max_sigma, config.eval_repeats
        bounds = f"({low:g}, {high:g})"
        blur = f"each once, sigma uniform in {bounds}"
        if repeats > 1:
            parts = f"the r-th with sigma from the r-th of {repeats} parts of {bounds}"
            blur = f"each {repeats} times, {parts}"
        if low == high:
            blur = f"sigma {low:g}"
        size = f"{config.eval_patch_size}x{config.eval_patch_size} pixels"
        return f"{size}, {blur}, seed {config.seed}, OpenCV's 8-bit GaussianBlur"


@dataclasses.dataclass(frozen=True)
class PatchSample:
    """Cuts a random patch, flips and turns it, and blurs it or says how."""

    source: SharpImages
    blur: PatchBlur
    patch_size: int
    flip: bool
    rotate: bool

    def __call__(self, index: int, rng: np.random.Generator) -> Sample:
        image = self.source[index]
        top, left = (rng.integers(0, size - self.patch_size + 1) for size in image.shape[:2])
        patch = _cut(image, top, left, self.patch_size, self.blur.margin)
        if self.flip and rng.random() < 0.5:
            patch = patch[:, ::-1]
        if self.rotate:
            patch = np.rot90(patch, int(rng.integers(4)))
        return self.blur(patch, index, rng)


def _training_blur(config: ConfigDict, num_images: int) -> PatchBlur:
    if config.degradation == "camera":
        return CameraBlur(Camera(**config.camera))
    if config.degradation == "scene":
        return SceneBlur(Scene(**config.scene))
    bounds = (config.min_sigma, config.max_sigma)
    sigmas = None
    if not config.fresh_sigma:
        sigmas = stratified_sigmas(num_images, 1, bounds, config.seed)[0]
    return GaussianBlur(sigmas, bounds)


def _centre(image: np.ndarray, size: int) -> np.ndarray:
    top, left = ((length - size) // 2 for length in image.shape[:2])
    return image[top : top + size, left : left + size]


def _cut(image: np.ndarray, top: int, left: int, size: int, margin: int) -> np.ndarray:
    """A square and the margin around it, which is reflected where the image ends."""
    extent = size + 2 * margin
    top, left = top - margin, left - margin
    height, width = image.shape[:2]
    if min(top, left) >= 0 and top + extent <= height and left + extent <= width:
        return image[top : top + extent, left : left + extent]  # several times quicker
    rows = reflected(np.arange(top, top + extent), height)
    columns = reflected(np.arange(left, left + extent), width)
    return image[rows[:, None], columns]
