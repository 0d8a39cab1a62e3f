"""Pixels as floats and as integers of a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from jaxdeblur.errors import InputError

_SLACK = 1e-3


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Pixels as float32; integers are divided by their type's largest value."""
    if np.issubdtype(pixels.dtype, np.integer):
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    return pixels.astype(np.float32)


def from_float(pixels: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """The inverse: clips to [0, 1], and rounds where the type is one of integers."""
    kind: Any = np.dtype(dtype)
    pixels = np.clip(pixels, 0, 1)
    if np.issubdtype(kind, np.integer):
        pixels = np.rint(pixels * np.iinfo(kind).max)
    return pixels.astype(kind)


def check_range(pixels: np.ndarray, name: str) -> None:
    """Refuses floats that are not in [0, 1]; what is not a number, or infinite, does not count.

    Args:
      pixels: of any type; integers are of any value.
      name: of the argument, for the message.

    Raises:
      InputError: a value is outside by more than rounding, 0.001.
    """
    if np.issubdtype(pixels.dtype, np.integer) or not pixels.size:
        return
    with np.errstate(invalid="ignore"):
        # Which pass over what is not a number.
        low, high = np.fmin.reduce(pixels, axis=None), np.fmax.reduce(pixels, axis=None)
    if np.isinf([low, high]).any():
        finite = pixels[np.isfinite(pixels)]
        low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    low, high = float(low), float(high)
    if low < -_SLACK or high > 1 + _SLACK:
        fix = "divide them by 255" if high > 2 else "clip them"
        raise InputError(
            f"{name} has values from {low:g} to {high:g}; floats must be in [0, 1]: {fix}"
        )


def reflected(index: np.ndarray, size: int) -> np.ndarray:
    """Mirrors indices at both ends of an axis, without repeating the edge, as often as it takes."""
    period = max(2 * (size - 1), 1)
    index = index % period
    return np.minimum(index, period - index) if size > 1 else np.zeros_like(index)
