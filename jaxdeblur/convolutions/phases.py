"""The phases of a stride as channels, without moving a number.

A convolution of stride S is one of stride 1 over the S * S phases of its input, whose channels
stand side by side. To put them side by side means to copy the image, in short runs; but an image of
S * H rows and S * W columns of c channels can be read, as it lies, as `[B, H, S, W, S * c]`: the
phases of the columns are beside the channels already, and those of the rows are a dimension that an
operation takes along, to merge it when it writes. The same holds for kernels, `[taps, S, taps, S *
a, b]`. An ordinary image or kernel has S = 1.
"""

from __future__ import annotations

import jax


def merge_phases(x: jax.Array, rows: int) -> jax.Array:
    """Moves the phases of the rows to the channels.

    Args:
      x: an image `[B, H, S, W, C]`, or a kernel `[taps, S, taps, a, b]`.
      rows: the dimension of the rows, 1 of an image, 0 of a kernel.

    Returns:
      `[B, H, W, S * C]`, or `[taps, taps, S * a, b]`.
    """
    before, after = x.shape[: rows + 1], x.shape[rows + 4 :]
    return x.swapaxes(rows + 1, rows + 2).reshape(*before, x.shape[rows + 2], -1, *after)


def split_phases(x: jax.Array, phases: int, rows: int) -> jax.Array:
    """The inverse of `merge_phases`."""
    before, after = x.shape[: rows + 2], x.shape[rows + 3 :]
    return x.reshape(*before, phases, -1, *after).swapaxes(rows + 1, rows + 2)
