"""How a scene becomes a blurred picture: things that move apart, the camera's light, its software.

Images are uint8 `[H, W, 3]`, square, of a patch and the margin around it. Works on one at a time,
on the host, as `degrade` does. In front of the photograph something else may move, along a path of
its own. The sharp picture is that of the middle of the exposure, as in GoPro and REDS. What needs
no restoring, noise and artefacts included, is to be left alone.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from jaxdeblur.data import degrade
from jaxdeblur.data.source import Sample
from jaxdeblur.pixels import from_float

MARGIN = 48  # pixels that a thing moves from where it is in the middle of the exposure, at most

_MOTION_POINTS = (7, 80)  # frames that are averaged as one; the light of an open shutter
_AVERAGED_SHARE = 0.4  # of the motions: made of a few frames, as GoPro's are
_GAMMAS = (1.0, 2.6)  # 1: the encoded values are averaged
_LARGEST_ENLARGEMENT = 2.0
_SATURATED_SHARE = 0.1  # of the blurs: what is white has been brighter
_SHARPENED_SHARE = 0.15  # of the pictures: by the camera, or by who had it before


@dataclasses.dataclass(frozen=True)
class Scene:
    """How often what happens to a picture. The rest of the shares is blur of motion.

    Attributes:
      still_share: of the pictures, those that need no restoring.
      gaussian_share: those with Gaussian blur.
      defocus_share: those out of focus.
      shortest_motion: in pixels along the path. As many motions are shorter as longer than the
        geometric mean of the shortest and the longest.
      longest_motion: in pixels along the path.
      layer_share: of the motions, those in which two things move apart.
      drawn_share: of all pictures, those that are drawn: flat areas, lines and letters.
      spoiled_share: of all pictures but the drawn ones, those with noise and JPEG.

    Raises:
      InputError: a share outside [0, 1], or a length that makes no path.
    """

    still_share: float = 0.2
    gaussian_share: float = 0.25
    defocus_share: float = 0.1
    shortest_motion: float = 1.5
    longest_motion: float = 44.0
    layer_share: float = 0.5
    drawn_share: float = 0.06
    spoiled_share: float = 0.3

    def __post_init__(self):
        degrade.check_bounds(
            self,
            "scene",
            ("still_share", 0, 1),
            ("gaussian_share", 0, 1 - self.still_share),
            ("defocus_share", 0, 1 - self.still_share - self.gaussian_share),
            ("shortest_motion", 0.1, self.longest_motion),
            ("longest_motion", self.shortest_motion, 2 * MARGIN),
            ("layer_share", 0, 1),
            ("drawn_share", 0, 1),
            ("spoiled_share", 0, 1),
        )


@dataclasses.dataclass(frozen=True)
class SceneBlur:
    """Takes a picture of a patch, which needs a margin for what moves into it."""

    scene: Scene
    margin: ClassVar[int] = MARGIN

    def __call__(self, patch: np.ndarray, index: int, rng: np.random.Generator) -> Sample:
        """Returns `blurred` and `sharp`, uint8 `[P, P, 3]`, of a patch with its margin."""
        del index
        blurred, sharp = take(patch, rng, self.scene)
        return {"sharp": np.ascontiguousarray(sharp), "blurred": np.ascontiguousarray(blurred)}


def take(
    photo: np.ndarray, rng: np.random.Generator, scene: Scene
) -> tuple[np.ndarray, np.ndarray]:
    """Takes one picture at random.

    Args:
      photo: uint8 `[P + 2 * MARGIN, P + 2 * MARGIN, 3]`.
      rng: decides on everything.
      scene: how often what happens.

    Returns:
      The blurred and the sharp picture without the margin, uint8 `[P, P, 3]`.
    """
    drawn = rng.random() < scene.drawn_share
    if drawn:
        photo = draw(len(photo), rng)
    shares = (scene.still_share, scene.gaussian_share, scene.defocus_share)
    kind = rng.choice(["none", "gaussian", "defocus", "motion"], p=[*shares, 1 - sum(shares)])
    if kind == "motion" and not drawn:
        photo = degrade.enlarge(photo, rng.uniform(1, _LARGEST_ENLARGEMENT))
    if kind == "none":
        blurred = sharp = _cropped(photo)
    else:
        gamma = rng.uniform(*_GAMMAS) if rng.random() < 0.4 else rng.choice((1.0, 2.2))
        light = (photo / np.float32(255)) ** np.float32(gamma)
        if rng.random() < _SATURATED_SHARE:
            light = light * (1 + rng.uniform(1, 4) * np.clip(light - 0.8, 0, None) / 0.2)
        if kind == "motion":
            exposed, light = expose_motion(light, rng, scene)
        else:
            exposed = convolve(light, degrade.still_kernel(str(kind), rng))
            light = _cropped(light)
        blurred, sharp = (
            from_float(np.clip(x, 0, 1) ** np.float32(1 / gamma), np.uint8)
            for x in (exposed, light)
        )
    if drawn:
        return blurred, sharp
    if rng.random() < _SHARPENED_SHARE:
        blurred = _sharpened(blurred, rng)
    if rng.random() < scene.spoiled_share:
        noisy = degrade.add_noise(degrade.to_linear(blurred), rng)
        blurred = from_float(degrade.to_encoded(noisy), np.uint8)
        blurred = degrade.compress(blurred, int(rng.integers(60, 98)))
    return blurred, blurred if kind == "none" else sharp


def expose_motion(
    light: np.ndarray, rng: np.random.Generator, scene: Scene
) -> tuple[np.ndarray, np.ndarray]:
    """Sums the light of a scene that moves, at times with something in front that moves otherwise.

    Args:
      light: float32 `[P + 2 * MARGIN, P + 2 * MARGIN, 3]`.
      rng: draws the paths and what is in front: the photograph the other way round.
      scene: how far things move, and how often apart.

    Returns:
      float32 `[P, P, 3]`, the sum, and the scene in the middle of the exposure.
    """
    behind = random_motion(scene, rng)
    if rng.random() >= scene.layer_share:
        return convolve(light, behind), _cropped(light)
    before, cover = light[::-1, ::-1], random_cover(len(light), rng)
    # What is in front hides what is behind where it has been; each is summed by itself.
    ahead = random_motion(scene, rng)
    front = convolve(np.concatenate([before * cover, cover], axis=-1), ahead)
    exposed = front[..., :3] + (1 - front[..., 3:]) * convolve(light, behind)
    return exposed, _cropped(before * cover + (1 - cover) * light)


def random_motion(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The kernel of a path, float32 `[2 * MARGIN + 1, 2 * MARGIN + 1]`, from its middle in time."""
    bounds = np.log((scene.shortest_motion, scene.longest_motion))
    length, turn = np.exp(rng.uniform(*bounds)), np.exp(rng.uniform(*np.log((0.002, 0.1))))
    few, many = _MOTION_POINTS
    points = int(rng.integers(few, many // 2)) if rng.random() < _AVERAGED_SHARE else many
    path = degrade.random_path(length, turn * many / points, points, rng)
    middle = path[(points - 1) // 2 : points // 2 + 1].mean(0)
    return degrade.path_kernel(path - middle, MARGIN)


def random_cover(side: int, rng: np.random.Generator) -> np.ndarray:
    """What something in front covers, float32 `[side, side, 1]` in [0, 1], with soft edges."""
    few = int(rng.integers(2, 6))
    coarse = Image.fromarray(rng.standard_normal((few, few)).astype(np.float32))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    edge = smooth.std() * np.exp(rng.uniform(*np.log((0.03, 0.15))))
    level = np.quantile(smooth, rng.uniform(0.3, 0.8))
    return np.clip((smooth - level) / edge + 0.5, 0, 1).astype(np.float32)[..., None]


def convolve(light: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolves float32 `[P + 2 * MARGIN, P + 2 * MARGIN, C]`; returns `[P, P, C]`.

    Circular, but what comes round the ends stays in the margin.
    """
    shape, first = light.shape[:2], MARGIN + len(kernel) // 2  # the kernel's centre moves it on
    size = [length - 2 * MARGIN for length in shape]
    spectrum = np.fft.rfft2(light, axes=(0, 1)) * np.fft.rfft2(kernel, shape)[..., None]
    summed = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    return summed[first : first + size[0], first : first + size[1]]


def draw(side: int, rng: np.random.Generator) -> np.ndarray:
    """Draws flat areas, steps of few levels, lines and letters, uint8 `[side, side, 3]`."""

    def colour() -> tuple[int, ...]:
        return tuple(int(n) for n in rng.integers(0, 256, 3))

    ground = np.array(colour(), np.float32)
    if rng.random() < 0.5:  # a slope, whose levels are bands
        ramp = np.linspace(0, rng.uniform(2, 40), side, dtype=np.float32)[:, None, None]
        image = np.rint(np.clip(ground + np.broadcast_to(ramp, (side, side, 1)), 0, 255))
    else:
        image = np.broadcast_to(ground, (side, side, 3))
    picture = Image.fromarray(np.rot90(image.astype(np.uint8), int(rng.integers(4))))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, 12))):
        left, top = (int(n) for n in rng.integers(0, side, 2))
        width, height = (int(n) for n in rng.integers(2, side // 2, 2))
        match int(rng.integers(4)):
            case 0:
                pen.rectangle((left, top, left + width, top + height), fill=colour())
            case 1:
                pen.ellipse((left, top, left + width, top + height), outline=colour())
            case 2:
                pen.line((left, top, left + width, top + height), fill=colour())
            case _:
                letters = "".join(chr(n) for n in rng.integers(33, 127, 24))
                pen.text((left, top), letters, fill=colour(), font_size=int(rng.integers(8, 28)))
    return np.asarray(picture)


def _sharpened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What is left after a camera's own sharpening."""
    mask = ImageFilter.UnsharpMask(rng.uniform(0.6, 2), int(rng.integers(20, 100)), 0)
    return np.asarray(Image.fromarray(image).filter(mask))


def _cropped(image: np.ndarray) -> np.ndarray:
    return image[MARGIN:-MARGIN, MARGIN:-MARGIN]
