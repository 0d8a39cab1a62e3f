"""Blur that is longer than a network has learned: further passes over the picture, shrunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jaxdeblur.pixels import from_float, to_float
from jaxdeblur.restoring.plausible import LIMITED_SIDE


def restore_scales(
    restore_once: Callable[[np.ndarray], np.ndarray], blurred: np.ndarray, scales: Iterable[int]
) -> np.ndarray:
    """Restores pictures at their own size, and at coarser ones.

    A blur longer than a network has learned is a short one where the picture is shrunk; what the
    network changes there is enlarged and added. Where that changes a blurred picture more than the
    pass at its own size does, its blur is such a long one, and the latter is left out: it would
    sharpen what it takes for something else. Otherwise the picture's own size comes first; after
    it, blur that the network knows is gone, and the coarser passes leave the picture alone. (Nah et
    al., CVPR 2017, go from coarse to fine in any case, with a network that has learned it.)

    Args:
      restore_once: restores pictures of any size and type, to new ones.
      blurred: `[..., H, W, 3]`; uint8, uint16, or float in [0, 1].
      scales: how many times to shrink, one pass after the other; those that leave less than
        `LIMITED_SIDE` pixels of a side are left out.

    Returns:
      The restored pictures, clipped, of the input's type.
    """
    room = min(blurred.shape[-3:-1]) // LIMITED_SIDE
    fitting = [scale for scale in scales if scale <= room]
    fine = restore_once(blurred)
    if not fitting:
        return fine
    coarse = _restore_coarse(restore_once, blurred, fitting)
    is_long = mean_square_change(blurred, coarse) > mean_square_change(blurred, fine)
    if is_long.all():
        return coarse
    restored = _restore_coarse(restore_once, fine, fitting)
    restored[is_long] = coarse[is_long]
    return restored


def _restore_coarse(
    restore_once: Callable[[np.ndarray], np.ndarray], pictures: np.ndarray, scales: Iterable[int]
) -> np.ndarray:
    """Adds what the network changes where the pictures are shrunk, to a copy of them."""
    restored = pictures.copy()
    for scale in scales:
        small = _shrink(restored, scale)
        _add_enlarged(restored, restore_once(small) - small, scale)
    return restored


def mean_square_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of each of the pictures `[..., H, W, 3]`, float64 `[...]`."""
    total = np.zeros(before.shape[:-3])
    for rows in bands(before.shape[-3]):
        difference = to_float(after[..., rows, :, :]) - to_float(before[..., rows, :, :])
        total += np.square(difference).sum((-3, -2, -1), dtype=np.float64)
    return total / np.prod(before.shape[-3:])


def _shrink(pictures: np.ndarray, scale: int) -> np.ndarray:
    """Means over squares of `scale` pixels, float32; at the ends the last pixel is repeated."""
    height, width = (-(-size // scale) for size in pictures.shape[-3:-1])
    columns = np.minimum(np.arange(width * scale), pictures.shape[-2] - 1)
    small = np.empty((*pictures.shape[:-3], height, width, 3), np.float32)
    for band in bands(height):
        rows = np.arange(band.start * scale, band.stop * scale)
        rows = np.minimum(rows, pictures.shape[-3] - 1)
        fine = np.nan_to_num(to_float(pictures[..., rows, :, :][..., columns, :]))
        squares = (*fine.shape[:-3], len(rows) // scale, scale, width, scale, 3)
        small[..., band, :, :] = fine.reshape(squares).mean((-4, -2))
    return small


def _add_enlarged(pictures: np.ndarray, change: np.ndarray, scale: int) -> None:
    """Adds `change`, enlarged by cubic interpolation, in place; a band at a time, for memory."""
    for rows in bands(pictures.shape[-3]):
        band = pictures[..., rows, :, :]
        larger = jax.image.scale_and_translate(
            change,
            band.shape,
            (change.ndim - 3, change.ndim - 2),
            jnp.array([scale, scale], jnp.float32),
            jnp.array([-rows.start, 0], jnp.float32),
            "cubic",
            antialias=False,
        )
        band[...] = from_float(to_float(band) + np.asarray(larger), pictures.dtype)


def bands(height: int) -> list[slice]:
    """Divides rows, so that not all of a picture need be of floats at a time."""
    return [slice(start, min(start + 128, height)) for start in range(0, height, 128)]
