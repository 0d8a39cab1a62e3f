"""Where a picture is flat nothing can be blurred, so nothing there is to be restored."""

from __future__ import annotations

import numpy as np

from jaxdeblur.pixels import from_float, to_float
from jaxdeblur.restoring.scales import bands

_BLOCK = 4  # pixels of a side; a pixel's surroundings are its block and two more to every side
_FAINT = 2 / 255  # contrast that a picture of 8 bits has by rounding alone
_SLOPE = 16  # a line of one pixel that is blurred keeps a sixteenth of its contrast, or more


def keep_flat(blurred: np.ndarray, restored: np.ndarray) -> None:
    """Bounds, in place, what restoring changes at a pixel by the contrast that is around it.

    Blur lowers contrast and leaves some of it. So a pixel whose surroundings are constant was
    constant before, and what a network makes of it is its own invention; likewise a faint step
    must not become a strong one. From a contrast of 18 levels of 255 on, nothing is bounded.

    Args:
      blurred: `[..., H, W, 3]`; uint8, uint16, or float in [0, 1].
      restored: of the same shape; of the same type, or float32 that is not clipped.
    """
    contrast = _contrast(blurred)
    # A change of the whole range, which no clipped picture exceeds.
    free = _FAINT + (1 - _FAINT) / _SLOPE
    if (contrast >= free).all():
        return
    columns = np.arange(blurred.shape[-2]) // _BLOCK
    for rows in bands(blurred.shape[-3]):
        around = contrast[..., np.arange(rows.start, rows.stop) // _BLOCK, :][..., columns]
        bound = around < free
        if not bound.any():
            continue
        band = restored[..., rows, :, :]
        faint = around[bound]
        most = np.where(faint <= _FAINT, faint, _FAINT + _SLOPE * (faint - _FAINT))[:, None]
        before, after = to_float(blurred[..., rows, :, :][bound]), to_float(band[bound])
        change = np.clip(after - before, -most, most)
        band[bound] = from_float(before + change, band.dtype)


def _contrast(pictures: np.ndarray) -> np.ndarray:
    """The largest difference of a channel around each block, float32 `[..., H / 4, W / 4]`."""
    from scipy import ndimage

    extremes = []
    for ufunc, widest in (
        (np.maximum, ndimage.maximum_filter),
        (np.minimum, ndimage.minimum_filter),
    ):
        blocks = pictures
        for axis in (-3, -2):
            first = np.arange(0, pictures.shape[axis], _BLOCK)
            blocks = ufunc.reduceat(blocks, first, axis=axis)
        size = [1] * (blocks.ndim - 3) + [5, 5, 1]
        extremes.append(widest(to_float(blocks), size=size, mode="nearest"))
    return (extremes[0] - extremes[1]).max(-1)
