"""Convolution of stride 1 by Winograd's minimal filtering: fewer products, summed elsewhere.

Along one axis, m outputs of a kernel of r taps take m*r products directly and n = m + r - 1 by
Toom and Cook's scheme: `y = At @ ((G @ kernel) * (Bt @ x))` with small constant matrices. Along
both axes of an image a 3x3 kernel so needs 36 products for a tile of 4x4 outputs instead of 144.
Over many channels the products are matrix products, `n * n` of them, one for each point of the
transformed tile, and the transforms are sums that cost little beside them.

The outputs of a dilated kernel fall into `dilation` phases an axis, each an ordinary convolution
of every `dilation`-th pixel: the phases are a batch dimension here, and cost nothing.

Rounding: in float32 the largest error is some 1e-5 of the largest output, ten times that of the
direct sum; it grows with the tile, which is why tiles are small.

References:
  Winograd, "Arithmetic Complexity of Computations", SIAM 1980; Lavin & Gray, "Fast Algorithms for
  Convolutional Neural Networks", CVPR 2016.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Interpolation points besides infinity: small ones, and of each the negative inverse, round least.
# An eighth point (2) was measured too: it rounds half as much again and makes no step quicker.
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, -0.5)
_MAX_POINTS = len(_POINTS) + 1
MAX_TAPS = 5

# A transformed element costs as much as this many products for each point of both axes of a tile,
# since it is a sum over them (measured on a Zen 3).
_TRANSFORM_COST = 6


@dataclasses.dataclass(frozen=True)
class Axis:
    """How one axis of the output is cut into tiles.

    Attributes:
      size: outputs along the axis.
      taps: of the kernel.
      dilation: pixels between taps.
      tile: outputs of a tile.
    """

    size: int
    taps: int
    dilation: int
    tile: int

    @property
    def points(self) -> int:
        """Products of a tile, and the inputs that it reads."""
        return self.tile + self.taps - 1

    @property
    def tiles(self) -> int:
        """Tiles of each phase; the last may reach beyond the image."""
        return -(-self.size // (self.tile * self.dilation))

    @property
    def products(self) -> int:
        """Products of the whole axis."""
        return self.points * self.tiles * self.dilation

    @property
    def bt(self) -> np.ndarray:
        """Transforms an input tile, `[points, points]`."""
        return toom_cook(self.tile, self.taps)[0]

    @property
    def g(self) -> np.ndarray:
        """Transforms the kernel, `[points, taps]`."""
        return toom_cook(self.tile, self.taps)[1]

    @property
    def at(self) -> np.ndarray:
        """Gathers an output tile, `[tile, points]`."""
        return toom_cook(self.tile, self.taps)[2]


@dataclasses.dataclass(frozen=True)
class Winograd:
    """The tiles of an output image, and the convolution by them.

    Between the transforms stand arrays `[N, B * tiles, channels]`, N points of a tile, the phases
    of a dilation counted as tiles. There is one for each two rows of points (a group) instead of
    one for all: XLA computes a batch of products on one core unless each is large, but independent
    operations on several.

    Attributes:
      rows: of the output.
      columns: of the output.
    """

    rows: Axis
    columns: Axis

    @classmethod
    def choices(cls, height: int, width: int, taps: int, dilation: int) -> list[Winograd]:
        """Returns the convolution with every size of tile."""

        def axes(size):
            return [Axis(size, taps, dilation, tile) for tile in tile_sizes(taps)]

        return [cls(*pair) for pair in itertools.product(axes(height), axes(width))]

    @property
    def tile_rows(self) -> int:
        """Output rows that a row of tiles makes."""
        return self.rows.tile * self.rows.dilation

    def cost(self, batch: int, features_in: int, features_out: int) -> float:
        """The work, in products."""
        kernel = self.rows.points * self.columns.points * features_in * features_out
        inputs = batch * self.rows.products * self.columns.products
        transformed = kernel + inputs * (features_in + features_out)
        terms = self.rows.points + self.columns.points
        return inputs * features_in * features_out + _TRANSFORM_COST * terms * transformed

    def temporary_elements(self, features_in: int, features_out: int) -> int:
        """Elements of the transformed input and output of one image."""
        return self.rows.products * self.columns.products * (features_in + features_out)

    def transform_kernel(self, kernel: jax.Array) -> list[jax.Array]:
        """`[taps, taps, in, out]` to `[N, in, out]` for each group."""
        taps = kernel.reshape(-1, kernel.shape[2] * kernel.shape[3])
        transforms = self._kernel_transforms(kernel.dtype)
        return [jnp.matmul(g, taps).reshape(-1, *kernel.shape[2:]) for g in transforms]

    def restore_gradient(
        self, gradients: list[jax.Array], kernel_shape: tuple[int, ...]
    ) -> jax.Array:
        """The transpose of `transform_kernel`, of what `kernel_gradient` returns."""
        pairs = zip(self._kernel_transforms(gradients[0].dtype), gradients, strict=True)
        terms = [jnp.matmul(g.T, gradient.reshape(len(g), -1)) for g, gradient in pairs]
        gradient = functools.reduce(operator.add, terms)
        gradient = gradient.reshape(*kernel_shape[:2], *gradients[0].shape[1:])
        return gradient if gradient.shape == kernel_shape else gradient.swapaxes(2, 3)

    def _kernel_transforms(self, dtype) -> list[np.ndarray]:
        """`[N, taps * taps]` for each group."""
        return [np.kron(self.rows.g[g], self.columns.g).astype(dtype) for g in self._groups]

    def convolve(
        self, x: jax.Array, transformed_kernel: list[jax.Array], out_first: bool
    ) -> jax.Array:
        """Convolves without padding.

        Args:
          x: float `[B, H, W, in]`; H and W are those of the output plus `(taps - 1) * dilation`.
          transformed_kernel: float `[N, in, out]` for each group, from `transform_kernel`.
          out_first: the kernel is `[taps, taps, out, in]`, and so `[N, out, in]`.

        Returns:
          `[B, rows.size, columns.size, out]`.
        """
        product = "npi,noi->npo" if out_first else "npi,nio->npo"
        pairs = zip(self._transform_input(x), transformed_kernel, strict=True)
        return self._gather_output([jnp.einsum(product, *pair) for pair in pairs], x.shape[0])

    def kernel_gradient(
        self, x: jax.Array, cotangent: jax.Array, out_first: bool
    ) -> list[jax.Array]:
        """The gradient of `convolve` for its transformed kernel.

        The thinner side comes first, since a product turns its first factor around: `[N, in, out]`
        or `[N, out, in]` for each group, where both are as wide in the kernel's order.
        """
        sides = self._transform_input(x), self._scatter_cotangent(cotangent)
        features_in, features_out = x.shape[-1], cotangent.shape[-1]
        if features_out < features_in or (out_first and features_out == features_in):
            sides = sides[::-1]
        return [jnp.einsum("npa,npb->nab", *pair) for pair in zip(*sides, strict=True)]

    @property
    def _groups(self) -> list[slice]:
        """The rows of a tile's points, in pairs."""
        return [slice(start, start + 2) for start in range(0, self.rows.points, 2)]

    def _transform_input(self, x) -> list[jax.Array]:
        """`[B, H, W, in]` to `[N, B * tiles, in]` for each group."""
        batch, height, width, features = x.shape
        rows, columns = self.rows, self.columns
        lengths = [axis.tile * axis.tiles + axis.taps - 1 for axis in (rows, columns)]
        missing = (lengths[0] * rows.dilation - height, lengths[1] * columns.dilation - width)
        x = jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
        x = x.reshape(batch, lengths[0], rows.dilation, lengths[1], columns.dilation, features)
        pixel_rows = _tile_pixels(x, rows, 1)

        def transform(bt):
            points = _combine(bt, pixel_rows, 0)
            points = _combine(columns.bt, _tile_pixels(points, columns, 4), 1)
            return points.reshape(len(bt) * columns.points, -1, features)

        return [transform(rows.bt[group]) for group in self._groups]

    def _gather_output(self, products: list[jax.Array], batch: int) -> jax.Array:
        """`[N, B * tiles, out]` for each group to `[B, rows.size, columns.size, out]`."""
        rows, columns = self.rows, self.columns
        tiles = (batch, rows.tiles, rows.dilation, columns.tiles, columns.dilation)

        def gather(points):
            points = points.reshape(-1, columns.points, *tiles, points.shape[-1])
            return _unstack(_combine(columns.at, _unstack(points, 1), 5), 0)

        point_rows = [row for points in products for row in gather(points)]
        y = _combine(rows.at, point_rows, 2)
        heights, widths = (axis.tiles * axis.tile * axis.dilation for axis in (rows, columns))
        return y.reshape(batch, heights, widths, -1)[:, : rows.size, : columns.size]

    def _scatter_cotangent(self, cotangent) -> list[jax.Array]:
        """The transpose of `_gather_output`."""
        rows, columns = self.rows, self.columns
        batch, height, width, features = cotangent.shape
        heights, widths = (axis.tiles * axis.tile * axis.dilation for axis in (rows, columns))
        missing = (heights - height, widths - width)
        y = jnp.pad(cotangent, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0))).reshape(
            *(batch, rows.tiles, rows.tile, rows.dilation),
            *(columns.tiles, columns.tile, columns.dilation, features),
        )
        pixel_rows = _unstack(y, 2)

        def scatter(a):
            points = _combine(a, pixel_rows, 0)
            points = _combine(columns.at.T, _unstack(points, 5), 1)
            return points.reshape(len(a) * columns.points, -1, features)

        return [scatter(rows.at.T[group]) for group in self._groups]


def tile_sizes(taps: int) -> range:
    """Returns how many outputs a tile may have along an axis."""
    return range(2, _MAX_POINTS - taps + 2)


@functools.cache
def toom_cook(tile: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `Bt [n, n]`, `G [n, taps]` and `At [tile, n]`, n = tile + taps - 1, in float64.

    Evaluating two polynomials at n points, multiplying and interpolating multiplies the
    polynomials; its transpose with one of them fixed is the filter. So `G` and `At` evaluate, and
    `Bt` holds the Lagrange polynomials, whose common denominators go to `G`.
    """
    n = tile + taps - 1
    points = np.array(_POINTS[: n - 1])

    def evaluate(terms):
        at_infinity = np.eye(terms)[-1:]
        return np.concatenate([np.vander(points, terms, increasing=True), at_infinity])

    lagrange = np.zeros((n, n))
    denominators = np.ones(n)
    for i, point in enumerate(points):
        others = np.delete(points, i)
        lagrange[i, :-1] = np.poly(others)[::-1]
        denominators[i] = np.prod(point - others)
    lagrange[-1] = np.poly(points)[::-1]
    return lagrange, evaluate(taps) / denominators[:, None], evaluate(tile).T


def _tile_pixels(x, axis: Axis, position: int) -> list[jax.Array]:
    """The first, second, ... pixel of every tile along dimension `position`; tiles overlap."""
    last = axis.tile * (axis.tiles - 1) + 1
    return [lax.slice_in_dim(x, i, i + last, axis.tile, axis=position) for i in range(axis.points)]


def _unstack(x, axis: int) -> list[jax.Array]:
    return [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Stacks along `axis` the sums `matrix[i, 0] * parts[0] + matrix[i, 1] * parts[1] + ...`.

    Written out term by term, since a matrix product would move each part to memory first.
    """

    def weighted(row):
        terms = [
            part if weight == 1 else part * weight.astype(part.dtype)
            for weight, part in zip(row, parts, strict=True)
            if weight
        ]
        return functools.reduce(operator.add, terms)

    return jnp.stack([weighted(row) for row in matrix], axis)
