"""Pixels as floats and as integers of a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike


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


def reflected(index: np.ndarray, size: int) -> np.ndarray:
    """Mirrors indices at both ends of an axis, without repeating the edge, as often as it takes."""
    period = max(2 * (size - 1), 1)
    index = index % period
    return np.minimum(index, period - index) if size > 1 else np.zeros_like(index)
