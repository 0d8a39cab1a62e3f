"""Convolution of stride 1 by Winograd's minimal filtering: fewer products, summed elsewhere.

Along one axis, m outputs of a kernel of r taps take m*r products directly and n = m + r - 1 by
Toom and Cook's scheme: `y = At @ ((G @ kernel) * (Bt @ x))` with small constant matrices. Along
both axes of an image a 3x3 kernel so needs 36 products for a tile of 4x4 outputs instead of 144.
Over many channels the products are matrix products, `n * n` of them, one for each point of the
transformed tile, and the transforms are sums that cost little beside them.

The outputs of a dilated kernel fall into `dilation` phases an axis, each an ordinary convolution
of every `dilation`-th pixel: the phases are a batch dimension here, and cost nothing.

The phases of a stride S count as channels. Images of such phases are `[B, H, S, W, C]` and kernels
`[taps, S, taps, a, b]` (see `phases`): S belongs to the images on the side of `a`, those on the
other have one phase.

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

from jaxdeblur.convolutions.phases import split_phases

# Interpolation points besides infinity: small ones, and of each the negative inverse, round least.
# An eighth point (2) was measured too: it rounds half as much again and makes no step quicker.
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, -0.5)
_MAX_POINTS = len(_POINTS) + 1
MAX_TAPS = 5

# A transformed element costs as much as this many products for each point of both axes of a tile,
# since it is a sum over them (measured on a Zen 3).
_TRANSFORM_COST = 6

# XLA has two matrix products on a CPU. The quicker one does not take a first factor that lies
# turned around; to turn it beforehand pays up to so many features (measured on a Xeon with
# AVX-512). The other one shares itself out among the cores, which gains where one device has them
# all; where each has its own, the products of the devices wait for each other.
_TURNED_FEATURES = 64
_TURNED_FEATURES_OF_SEVERAL_DEVICES = 128


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
        """`[taps, S, taps, a, b]` to `[N, S, a, b]` for each group."""
        _, phases, _, first, second = kernel.shape
        if phases == 1:
            taps = kernel.reshape(-1, first * second)
            products = [jnp.matmul(g, taps) for g in self._kernel_transforms(kernel.dtype)]
            return [points.reshape(-1, 1, first, second) for points in products]
        # Sums instead of a product, for which the taps of each phase would have to be copied.
        tap_rows = _unstack(kernel, 0)

        def transform(g):
            points = _combine(self.columns.g, _unstack(_combine(g, tap_rows, 0), 2), 1)
            return points.reshape(-1, phases, first, second)

        return [transform(self.rows.g[group]) for group in self._groups]

    def restore_gradient(
        self, gradients: list[jax.Array], kernel_shape: tuple[int, ...]
    ) -> jax.Array:
        """The transpose of `transform_kernel`, of what `kernel_gradient` returns."""
        taps, phases, _, first, second = kernel_shape
        sides = gradients[0].shape[1:]
        if phases == 1:
            pairs = zip(self._kernel_transforms(gradients[0].dtype), gradients, strict=True)
            terms = [jnp.matmul(g.T, points.reshape(len(g), -1)) for g, points in pairs]
            gradient = functools.reduce(operator.add, terms)
        else:
            points = [points.reshape(-1, self.columns.points, *sides) for points in gradients]
            point_rows = [row for group in points for row in _unstack(group, 0)]
            tap_rows = _combine(self.rows.g.T, point_rows, 0)
            gradient = _combine(self.columns.g.T, _unstack(tap_rows, 1), 1)
        if sides == (phases * first, second):
            return split_phases(gradient.reshape(taps, taps, *sides), phases, 0)
        return gradient.reshape(taps, taps, second, phases, first).transpose(0, 3, 1, 4, 2)

    def _kernel_transforms(self, dtype) -> list[np.ndarray]:
        """`[N, taps * taps]` for each group."""
        return [np.kron(self.rows.g[g], self.columns.g).astype(dtype) for g in self._groups]

    def convolve(
        self, x: jax.Array, transformed_kernel: list[jax.Array], out_first: bool
    ) -> jax.Array:
        """Convolves without padding.

        Args:
          x: float `[B, H, S, W, in]`; W is that of the output plus `(taps - 1) * dilation`, H that
            or more; S is 1 with `out_first`.
          transformed_kernel: float `[N, S, in, out]` for each group, from `transform_kernel`.
          out_first: the kernel is `[taps, S, taps, out, in]`, and so `[N, S, out, in]`.

        Returns:
          `[B, rows.size, S, columns.size, out]`; S is 1 without `out_first`.
        """
        product = "npi,noi->npo" if out_first else "npi,nio->npo"
        phases = transformed_kernel[0].shape[1] if out_first else 1
        kernels = [
            points.reshape(len(points), -1, points.shape[3]) for points in transformed_kernel
        ]
        pairs = zip(self._transform_input(x), kernels, strict=True)
        return self._gather_output([jnp.einsum(product, *pair) for pair in pairs], len(x), phases)

    def kernel_gradient(
        self, x: jax.Array, cotangent: jax.Array, out_first: bool
    ) -> list[jax.Array]:
        """The gradient of `convolve` for its transformed kernel.

        Returns:
          `[N, S * a, b]` for each group, or `[N, b, S * a]`: a product turns its first factor
          around, which for the thinner one is less work, but then the gradient is to be turned.
          Sides that are equally wide come in the kernel's order.
        """
        first, second = self._transform_input(x), self._scatter_cotangent(cotangent)
        if out_first:
            first, second = second, first
        tiles, thick, thin = *first[0].shape[1:], second[0].shape[2]
        points = self.rows.points * self.columns.points
        if points * tiles * (thick - thin) > self.rows.taps * self.columns.taps * thick * thin:
            first, second = second, first
        return [_sum_outer(*pair) for pair in zip(first, second, strict=True)]

    @property
    def _groups(self) -> list[slice]:
        """The rows of a tile's points, in pairs."""
        return [slice(start, start + 2) for start in range(0, self.rows.points, 2)]

    def _transform_input(self, x) -> list[jax.Array]:
        """`[B, H, S, W, C]` to `[N, B * tiles, S * C]` for each group."""
        batch, height, phases, width, features = x.shape
        rows, columns = self.rows, self.columns
        lengths = [axis.tile * axis.tiles + axis.taps - 1 for axis in (rows, columns)]
        lengths[0] = max(lengths[0], -(-height // rows.dilation))
        missing = (lengths[0] * rows.dilation - height, lengths[1] * columns.dilation - width)
        x = jnp.pad(x, ((0, 0), (0, missing[0]), (0, 0), (0, missing[1]), (0, 0)))
        x = x.reshape(
            *(batch, lengths[0], rows.dilation, phases),
            *(lengths[1], columns.dilation, features),
        )
        pixel_rows = _tile_pixels(x, rows, 1)

        def transform(bt):
            points = jnp.moveaxis(_combine(bt, pixel_rows, 0), 4, 6)  # phases beside features
            points = _combine(columns.bt, _tile_pixels(points, columns, 4), 1)
            return points.reshape(len(bt) * columns.points, -1, phases * features)

        return [transform(rows.bt[group]) for group in self._groups]

    def _gather_output(self, products: list[jax.Array], batch: int, phases: int) -> jax.Array:
        """`[N, B * tiles, S * C]` for each group to `[B, rows.size, S, columns.size, C]`."""
        rows, columns = self.rows, self.columns
        tiles = (batch, rows.tiles, rows.dilation, columns.tiles, columns.dilation)

        def gather(points):
            points = points.reshape(-1, columns.points, *tiles, phases, points.shape[-1] // phases)
            points = _unstack(jnp.moveaxis(points, 7, 5), 1)
            return _unstack(_combine(columns.at, points, 6), 0)

        point_rows = [row for points in products for row in gather(points)]
        y = _combine(rows.at, point_rows, 2)
        heights, widths = (axis.tiles * axis.tile * axis.dilation for axis in (rows, columns))
        y = y.reshape(batch, heights, phases, widths, -1)
        return y[:, : rows.size, :, : columns.size]

    def _scatter_cotangent(self, cotangent) -> list[jax.Array]:
        """The transpose of `_gather_output`."""
        rows, columns = self.rows, self.columns
        batch, height, phases, width, features = cotangent.shape
        heights, widths = (axis.tiles * axis.tile * axis.dilation for axis in (rows, columns))
        missing = (heights - height, widths - width)
        y = jnp.pad(cotangent, ((0, 0), (0, missing[0]), (0, 0), (0, missing[1]), (0, 0))).reshape(
            *(batch, rows.tiles, rows.tile, rows.dilation, phases),
            *(columns.tiles, columns.tile, columns.dilation, features),
        )
        pixel_rows = _unstack(y, 2)

        def scatter(a):
            points = jnp.moveaxis(_combine(a, pixel_rows, 0), 4, 7)
            points = _combine(columns.at.T, _unstack(points, 5), 1)
            return points.reshape(len(a) * columns.points, -1, phases * features)

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


def _sum_outer(a: jax.Array, b: jax.Array) -> jax.Array:
    """Sums over the tiles of each point the outer product, `[N, P, A]` and `[N, P, B]`."""
    several = jax.local_device_count() > 1
    if a.shape[2] > (_TURNED_FEATURES_OF_SEVERAL_DEVICES if several else _TURNED_FEATURES):
        return jnp.einsum("npa,npb->nab", a, b)
    # The barrier keeps XLA from taking the turn into the product.
    return jnp.einsum("nap,npb->nab", lax.optimization_barrier(a.swapaxes(1, 2)), b)
