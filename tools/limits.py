"""Measures the `limits` of a weights' card: the most that the network may plausibly change.

  python tools/limits.py --model atrous-photo --data_dir photos

restores the `val` photographs of a folder, as they are, blurred by Gaussians and spoiled as cameras
do, and prints twice the most that any part of 64x64 pixels changed
(`jaxdeblur.restoring.plausible.changes`).
"""

from __future__ import annotations

import argparse
import json

import jax
import numpy as np

from jaxdeblur.data import blur, degrade, photos
from jaxdeblur.errors import reported
from jaxdeblur.pixels import to_float
from jaxdeblur.restoring.plausible import LIMITED_SIDE, changes
from jaxdeblur.weights import load

SIDE = 256  # of the central part that is restored
SIGMAS = (0.0, 1.0, 2.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="what jaxdeblur.load takes")
    parser.add_argument("--data_dir", required=True, help="folder of photographs")
    arguments = parser.parse_args()
    with reported():
        most = measure(arguments.model, arguments.data_dir)
    print(json.dumps({name: round(2 * value, 3) for name, value in most.items()}))


def measure(model: str, data_dir: str) -> dict[str, float]:
    """Returns the most that any part changes."""
    deblurrer = load(model)
    apply = jax.jit(deblurrer.module.apply)
    most: dict[str, float] = {}
    for index, photo in enumerate(photos.photo_folder(data_dir, "val")):
        for spoiled in variants(photo, index):
            before = to_float(spoiled)
            # A network of video mode sees a clip that stands still.
            frames = np.concatenate([before] * (deblurrer.card["channels"] // 3), axis=-1)
            after = np.asarray(apply(deblurrer.variables(), frames[None])[0])
            for name, value in parts(before, after):
                most[name] = max(value, most.get(name, 0))
    return most


def variants(photo: np.ndarray, index: int) -> list[np.ndarray]:
    """The middle of a photograph, uint8 `[SIDE, SIDE, 3]`, spoiled in several ways."""
    wide = SIDE + 2 * degrade.MARGIN
    top, left = ((size - wide) // 2 for size in photo.shape[:2])
    photo = photo[top : top + wide, left : left + wide]
    inside = slice(degrade.MARGIN, -degrade.MARGIN)
    batch = np.stack([photo] * len(SIGMAS))
    blurred = np.asarray(blur.gaussian_blur(batch, np.array(SIGMAS, np.float32)))
    camera, _ = degrade.degrade(photo, np.random.default_rng(index))
    return [*blurred[:, inside, inside], camera]


def parts(before: np.ndarray, after: np.ndarray):
    """What changes in each square of `LIMITED_SIDE` pixels."""
    for top in range(0, SIDE, LIMITED_SIDE):
        for left in range(0, SIDE, LIMITED_SIDE):
            square = slice(top, top + LIMITED_SIDE), slice(left, left + LIMITED_SIDE)
            yield from changes(before[square], after[square]).items()


if __name__ == "__main__":
    main()
