"""Restored photographs beside sharp ones: PSNR and SSIM in words, and a picture."""

from __future__ import annotations

import glob
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdeblur.errors import InputError

if TYPE_CHECKING:
    import numpy as np


def partner(path: Path) -> Path:
    """The photograph at a path, or else the one of the same name in another format."""
    from jaxdeblur.media import photo

    if path.is_file():
        return path
    others = [
        other
        for other in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))
        if other.stem == path.stem and other.suffix.lower() in photo.SUFFIXES and other.is_file()
    ]
    if not others:
        raise InputError(f"has no sharp partner {path}")
    if len(others) > 1:
        names = " and ".join(other.name for other in others)
        raise InputError(f"has several sharp partners in {path.parent}: {names}")
    return others[0]


def measure(
    blurred: np.ndarray, restored: np.ndarray, sharp: np.ndarray
) -> tuple[float, float, float, float]:
    """PSNR of both in decibels, then SSIM of both, as `eval.py` measures them.

    SSIM is not a number for what is smaller than its window.
    """
    import jax.numpy as jnp

    from jaxdeblur import metrics
    from jaxdeblur.pixels import to_float

    before, after, original = (jnp.asarray(to_float(x)) for x in (blurred, restored, sharp))
    decibels = [float(metrics.psnr(picture, original)) for picture in (before, after)]
    if min(original.shape[:2]) < metrics.SSIM_WINDOW:
        return decibels[0], decibels[1], math.nan, math.nan
    values = [float(metrics.ssim(picture, original)) for picture in (before, after)]
    return decibels[0], decibels[1], values[0], values[1]


def in_words(compared: Sequence[float]) -> str:
    before, after, *similarity = compared
    line = f"PSNR {before:.2f} -> {after:.2f} dB"
    if math.isnan(similarity[0]):
        return line
    return f"{line}, SSIM {similarity[0]:.4f} -> {similarity[1]:.4f}"


def mean_in_words(comparisons: Sequence[Sequence[float]]) -> str:
    """The mean of each value over the pictures where it is finite, as `eval.py` takes it."""
    means, left_out = [], False
    for column in zip(*comparisons, strict=True):
        finite = [value for value in column if math.isfinite(value)]
        left_out |= any(map(math.isinf, column))
        means.append(sum(finite) / len(finite) if finite else column[0])
    remark = " (infinite PSNR left out)" if left_out else ""
    return f"mean of {len(comparisons)}: {in_words(means)}{remark}"


def side_by_side(pictures: list[np.ndarray]) -> bytes:
    """Blurred, restored and sharp in one PNG, with a white line between."""
    import io

    import numpy as np
    from PIL import Image

    from jaxdeblur.pixels import from_float, to_float

    gap = np.full((pictures[0].shape[0], 8, 3), 255, np.uint8)
    parts = [
        part for picture in pictures for part in (gap, from_float(to_float(picture), np.uint8))
    ]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(parts[1:], axis=1)).save(file, "PNG")
    return file.getvalue()
