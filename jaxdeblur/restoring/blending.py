"""Tiles for networks that see all they are given: large ones, blended where they overlap.

Such a network takes means, or mixes pixels, over all of its input (channel attention, the grids of
MAXIM). What it makes of a tile is no part of what it makes of the whole, and neighbours differ
where they meet. Tiles are no makeshift for it: it was trained on small patches, and knows what it
sees in a tile better. Each network says which tiles it wants, `tile_size` and `tile_overlap`.
"""

from __future__ import annotations

import math

import numpy as np


def length_of(size: int, longest: int, overlap: int, multiple: int) -> tuple[int, int]:
    """Length and number of the tiles along one axis: as few as will do, and then as short.

    Args:
      size: of the picture, in pixels.
      longest: a tile's length at most, a multiple of `multiple`.
      overlap: of neighbours at least, in pixels, less than `longest`.
      multiple: lengths are multiples of it; a picture that takes one tile is padded.
    """
    count = max(math.ceil((size - overlap) / (longest - overlap)), 1) if size > longest else 1
    shortest = math.ceil((size + (count - 1) * overlap) / count)
    return -(-shortest // multiple) * multiple, count


def starts(size: int, length: int, count: int) -> list[int]:
    """First pixels of tiles, evenly spread; the last one ends with the picture."""
    if count == 1:
        return [0]
    return [i * (size - length) // (count - 1) for i in range(count)]


def weights(size: int, length: int, first: list[int], overlap: int) -> list[np.ndarray]:
    """What each tile counts for, at each of its pixels inside the picture.

    It falls off to the sides where there is a neighbour; the weights of a pixel sum up to 1.

    Args:
      size: of the picture along the axis, in pixels.
      length: of the tiles.
      first: their first pixels.
      overlap: pixels over which the weight falls off.

    Returns:
      For each tile float32 `[length]`, less where the picture ends before.
    """
    found = []
    total = np.zeros(size, np.float64)
    for start in first:
        pixels = np.arange(start, min(start + length, size))
        weight = np.ones(len(pixels))
        if start > 0:
            weight = np.minimum(weight, (pixels - start + 0.5) / overlap)
        if start + length < size:
            weight = np.minimum(weight, (start + length - pixels - 0.5) / overlap)
        total[pixels] += weight
        found.append(weight)
    return [
        (weight / total[start : start + len(weight)]).astype(np.float32)
        for start, weight in zip(first, found, strict=True)
    ]
