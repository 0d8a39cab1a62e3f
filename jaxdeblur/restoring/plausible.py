"""Whether what a network made of a picture can be a restored picture at all."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

# From this side on, what a network changes on average is a property of the network: a part of a few
# pixels may well become quite another.
LIMITED_SIDE = 64


def changes(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Measures by how much a network changes a picture.

    Args:
      before: blurred `[H, W, 3]` in [0, 1].
      after: restored, not clipped.

    Returns:
      `change`, the root mean square of the difference; `overshoot`, the mean excess over [0, 1];
      and `colour_shift`, the largest change of a channel's mean.
    """
    difference = after - before
    return {
        "change": float(np.sqrt(np.square(difference).mean())),
        "overshoot": float(np.abs(after - np.clip(after, 0, 1)).mean()),
        "colour_shift": float(np.abs(difference.mean((0, 1))).max()),
    }


def implausible(before: np.ndarray, after: np.ndarray, limits: Mapping[str, float]) -> str | None:
    """Says why a result cannot be a restored picture, or None.

    Args:
      before: blurred `[H, W, 3]` in [0, 1].
      after: restored, not clipped.
      limits: the most that a network's card allows of what `changes` measures, for parts of
        `LIMITED_SIDE` pixels squared or more; what it does not name is not checked.
    """
    if not np.isfinite(after).all():
        return "the network's output is not finite"
    if before.shape[0] * before.shape[1] < LIMITED_SIDE**2:
        return None
    for name, value in changes(before, after).items():
        if value > limits.get(name, math.inf):
            return f"{name.replace('_', ' ')} {value:.3f}, more than {limits[name]:.3f}"
    return None
