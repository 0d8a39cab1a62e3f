"""The geometry of tiles: how a picture of any size is padded and cut for a network.

Most networks are local: a restored pixel depends on no more than `module.reach` pixels around it.
So a tile with that margin gives what the whole picture would, to rounding, if it lies on the
network's grid and the margin is left out only where the picture itself ends. The others have no
`reach`, and their tiles are blended (`blending`).

Pictures are padded, by reflection, to the network's grid and no further: what is restored is what
the network makes of the whole. XLA compiles a program for each size, though. A single picture is
therefore covered with tiles of a few shapes, a batch, whose size its user chose, with what is least
work.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from flax import linen as nn

from jaxdeblur.errors import InputError
from jaxdeblur.pixels import reflected
from jaxdeblur.restoring import blending

Tile = int | Literal["auto", "off"]

# Shapes of tiles, in pixels: few, so that a folder of photographs compiles few programs, and small
# enough for the caches of a CPU (with 64 channels, a pixel costs half as much again beyond).
_SHAPES = ((256, 256), (384, 512), (512, 384), (512, 768), (768, 512), (768, 768))
# For pictures that are just as high or as wide.
_COMMON = ((480, 640), (640, 480), (720, 768), (768, 720))

# Up to so many pixels a picture has a program of its own, which is soon compiled: four tiles would
# be far more work. Pictures that are shrunk for further passes are often so small.
_SMALL = 256**2


@dataclasses.dataclass(frozen=True)
class Span:
    """A tile along one axis.

    Attributes:
      start: its first pixel.
      first: the first pixel that it gives to the result.
      stop: the pixel after the last one.
      weight: of each of these pixels, where tiles overlap; None for 1.
    """

    start: int
    first: int
    stop: int
    weight: np.ndarray | None = None

    @property
    def inside(self) -> slice:
        """The tile's own pixels that it gives to the result."""
        return slice(self.first - self.start, self.stop - self.start)

    def grown(self, side: int, tile: int, size: int) -> slice:
        """The same, grown to `side` pixels where the tile has as many of the picture.

        Args:
          side: pixels.
          tile: length of the tile.
          size: of the picture along the axis.
        """
        first = max(min(self.first, self.stop - side), self.start, 0)
        stop = min(max(self.stop, first + side), self.start + tile, size)
        return slice(first - self.start, stop - self.start)


def cut(length: int, padded: int, tile: int, reach: tuple[int, int], multiple: int) -> list[Span]:
    """Covers one axis of a picture with overlapping tiles.

    Args:
      length: of the picture, in pixels.
      padded: its length with padding, a multiple of `multiple`.
      tile: length of a tile, a multiple of `multiple`. It may be more than `padded` where that is
        no less than both reaches: then a tile that starts with the picture and one that ends with
        it cover it, and what lies beyond the other end is not seen.
      reach: pixels before and after its own that a restored pixel depends on.
      multiple: tiles start on multiples of it.

    Returns:
      The tiles in order; what they give follows one another from 0 to `length`.
    """
    before, after = reach
    seen = min(tile, padded)
    spans = [Span(0, 0, length if tile == padded else min(seen - after, length))]
    while spans[-1].stop < length:
        first = spans[-1].stop
        start = min((first - before) // multiple * multiple, padded - tile)
        stop = length if start + tile == padded else min(start + tile - after, length)
        spans.append(Span(start, first, stop))
    return spans


@dataclasses.dataclass(frozen=True)
class Plan:
    """The tiles of pictures of one size.

    Attributes:
      shape: height and width of a tile.
      rows: the tiles along the height.
      columns: the tiles along the width.
    """

    shape: tuple[int, int]
    rows: list[Span]
    columns: list[Span]

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        padded: tuple[int, int],
        shape: tuple[int, int],
        reach: tuple[int, int],
        multiple: int,
    ) -> Plan | None:
        """The plan with tiles of a shape; None where their margins leave nothing of them."""
        for tile, whole in zip(shape, padded, strict=True):
            if tile != whole and min(tile, whole) < sum(reach) + multiple:
                return None
        spans = (
            cut(length, whole, tile, reach, multiple)
            for length, whole, tile in zip(size, padded, shape, strict=True)
        )
        return cls(shape, *spans)

    def grown(
        self, rows: Span, columns: Span, side: int, size: tuple[int, ...]
    ) -> tuple[slice, ...]:
        """What a tile gives to pictures of a size, grown to `side` pixels squared if it can be."""
        axes = zip((rows, columns), self.shape, size, strict=True)
        return tuple(span.grown(side, tile, pixels) for span, tile, pixels in axes)

    @property
    def blended(self) -> bool:
        """Whether the tiles are blended where they overlap."""
        return self.rows[0].weight is not None

    @property
    def pixels(self) -> int:
        """Pixels of all tiles."""
        return math.prod(self.shape) * len(self.rows) * len(self.columns)


def plan(
    module: nn.Module,
    size: tuple[int, int],
    tile: Tile = "auto",
    *,
    single: bool,
    budget: int,
) -> Plan:
    """Decides on padding and tiles.

    Args:
      module: the network.
      size: height and width of the picture in pixels.
      tile: side of square tiles in pixels, "auto" for tiles that fit the memory, "off" for none.
      single: a picture by itself, which shares programs with pictures of other sizes.
      budget: pixels that may be restored at once.

    Raises:
      InputError: tiles of the given size would be nothing but margin.
    """
    network: Any = module
    multiple, reach = network.size_multiple, network.reach
    if reach is None:
        return _blended_plan(network, size, tile, budget)
    height, width = (round_up(max(n, network.minimum_size), multiple) for n in size)
    whole = (height, width)
    if tile == "off" or (
        tile == "auto" and not single and height * width <= min(budget, math.prod(_SHAPES[-1]))
    ):
        shapes = [whole]
    elif tile == "auto":
        shapes = _shared_shapes(whole) if single else [_within(s, whole) for s in _SHAPES]
    else:
        side = round_up(tile, multiple)
        shapes = [_within((side, side), whole)]

    def plans_of(shapes: list[tuple[int, int]]) -> list[Plan]:
        return [p for s in shapes if (p := Plan.of(size, whole, s, reach, multiple))]

    plans = plans_of(shapes)
    if not plans and tile != "auto":
        raise InputError(
            f"tile = {tile} is too small for {type(module).__name__}, whose margins are "
            f"{reach[0]} and {reach[1]} pixels; {sum(reach) + multiple} at least, or 'auto'"
        )
    if not plans:  # a side of the picture, or of every tile, is no longer than the margins
        plans = plans_of([_within(s, whole) for s in _SHAPES]) or plans_of([whole])
    fitting = [p for p in plans if math.prod(p.shape) <= budget]
    if fitting:
        return min(fitting, key=lambda p: p.pixels)
    return min(plans, key=lambda p: math.prod(p.shape))


def _shared_shapes(whole: tuple[int, int]) -> list[tuple[int, int]]:
    """The shapes for single pictures of a size."""
    if math.prod(whole) <= _SMALL:
        return [whole]
    common = [s for s in _COMMON if s[0] == whole[0] or s[1] == whole[1]]
    return [*_SHAPES, *common]


def _within(shape: tuple[int, int], whole: tuple[int, int]) -> tuple[int, int]:
    return min(shape[0], whole[0]), min(shape[1], whole[1])


def _blended_plan(network: Any, size: tuple[int, int], tile: Tile, budget: int) -> Plan:
    """The tiles of a network that sees all of its input; arguments as of `plan`."""
    multiple, overlap = network.size_multiple, network.tile_overlap
    longest = network.tile_size
    if tile == "off":
        longest = round_up(max(size), multiple)
    elif tile != "auto":
        longest = round_up(tile, multiple)
    elif budget < longest**2:
        longest = max(math.isqrt(budget) // multiple * multiple, multiple)
    overlap = min(overlap, longest // 4)
    lengths, spans = [], []
    for pixels in size:
        length, count = blending.length_of(pixels, longest, overlap, multiple)
        length = max(length, network.minimum_size)
        first = blending.starts(pixels, length, count)
        weights = blending.weights(pixels, length, first, max(overlap, 1))
        lengths.append(length)
        spans.append([Span(n, n, n + len(w), w) for n, w in zip(first, weights, strict=True)])
    return Plan((lengths[0], lengths[1]), *spans)


def weight_of(rows: Span, columns: Span) -> np.ndarray:
    """What a tile counts for at each pixel that it gives, float32 `[H, W, 1]`; 1 unless blended."""
    if rows.weight is None or columns.weight is None:
        return np.ones((1, 1, 1), np.float32)
    return (rows.weight[:, None] * columns.weight)[..., None]


def window(picture: np.ndarray, rows: Span, columns: Span, shape: tuple[int, int]) -> np.ndarray:
    """A tile of the padded picture."""
    lines = (
        reflected(np.arange(span.start, span.start + length), size)
        for span, length, size in zip((rows, columns), shape, picture.shape[:2], strict=True)
    )
    return picture[np.ix_(*lines)]


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple that is no less than a number."""
    return -(-number // multiple) * multiple
