"""Pixels mixed by matrices, within blocks and over a grid, and the gates made of them.

Pixels that are mixed are brought to the first axis, so that mixing is one matrix product.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from jaxdeblur.models.joining import Halves, Rejoined, affine_parameters
from jaxdeblur.models.layers import Dense, Layer, LayerNorm

near_zero = nn.initializers.normal(0.02)


Tokens = Literal["grid", "block"]


class Layout(NamedTuple):
    """Which pixels are mixed with each other, and how they are brought to the first axis.

    Attributes:
      tokens: "block": the pixels of each square block of `side` pixels; "grid": those at the same
        place in each of `side` by `side` cells, which the image is divided into.
      side: 8 or 16.
    """

    tokens: Tokens
    side: int

    def split(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[side * side, B * H * W / (side * side), C]`."""
        batch, height, width, channels = x.shape
        x = x.reshape(batch, *self._cells(height), *self._cells(width), channels)
        first, second = (1, 3) if self.tokens == "grid" else (2, 4)
        rest = (2, 4) if self.tokens == "grid" else (1, 3)
        return x.transpose(first, second, 0, *rest, 5).reshape(self.side**2, -1, channels)

    def join(self, tokens: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The inverse of `split`, for an image `[B, H, W, ...]` of that shape."""
        batch, height, width = shape[:3]
        (a, b), (c, d) = self._cells(height), self._cells(width)
        if self.tokens == "grid":
            x = tokens.reshape(a, c, batch, b, d, -1).transpose(2, 0, 3, 1, 4, 5)
        else:
            x = tokens.reshape(b, d, batch, a, c, -1).transpose(2, 3, 0, 4, 1, 5)
        return x.reshape(batch, height, width, -1)

    def _cells(self, length: int) -> tuple[int, int]:
        many = length // self.side
        return (self.side, many) if self.tokens == "grid" else (many, self.side)


class Mixing(Layer):
    """Makes each token a sum of all."""

    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Multiplies tokens `[T, M, C]` by `[T, T]`."""
        count = tokens.shape[0]
        affine = affine_parameters(self, (count, count), near_zero, self.bias_init)
        tokens, kernel, bias = promote_dtype(tokens, *affine, dtype=self.dtype)
        # Turned beforehand: on a CPU, XLA's product with a turned first factor is slow.
        turned = jax.lax.optimization_barrier(kernel.T)
        return (turned @ tokens.reshape(count, -1)).reshape(tokens.shape) + bias[:, None, None]

    def products(self, arguments: tuple[Any, ...], y: jax.Array) -> int:
        """See `Layer`; each number of the kernel meets all but the first axis."""
        return y.shape[0] * y.size


class GatingUnit(nn.Module):
    """Features, times others whose pixels are mixed."""

    layout: Layout
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, kept: jax.Array, mixed: jax.Array) -> jax.Array:
        """Maps twice `[B, H, W, C]` to the same shape."""
        mixed = LayerNorm(self.dtype, name="intermediate_layernorm")(mixed)
        mixed = Mixing(dtype=self.dtype, name="Dense_0")(self.layout.split(mixed))
        return kept * (self.layout.join(mixed, kept.shape) + 1)


class GatedMlp(nn.Module):
    """The gated MLP over the pixels of blocks or of a grid, added to what came in."""

    layout: Layout
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        channels = x.shape[-1]
        options = {"kernel_init": near_zero, "dtype": self.dtype}
        y = LayerNorm(self.dtype, name="LayerNorm")(x)
        kept, mixed = map(nn.gelu, Halves(channels, **options, name="in_project")(y))
        unit = f"{self.layout.tokens.capitalize()}GatingUnit"
        y = GatingUnit(self.layout, self.dtype, name=unit)(kept, mixed)
        return x + Dense(channels, **options, name="out_project")(y)


class MultiAxisBlock(nn.Module):
    """Half of the channels mixed over a grid, half within blocks, added to what came in."""

    side: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        channels = x.shape[-1]
        options = {"kernel_init": near_zero, "dtype": self.dtype}
        y = LayerNorm(self.dtype, name="LayerNorm_in")(x)
        far, near = map(nn.gelu, Halves(channels, **options, name="in_project")(y))
        far = GatedMlp(Layout("grid", self.side), self.dtype, name="GridGmlpLayer")(far)
        near = GatedMlp(Layout("block", self.side), self.dtype, name="BlockGmlpLayer")(near)
        return x + Rejoined(channels, **options, name="out_project")(far, near)


class GatingWeights(nn.Module):
    """Weights for every pixel and channel, from pixels mixed over a grid and within blocks."""

    side: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        channels = x.shape[-1]
        y = LayerNorm(self.dtype, name="LayerNorm_in")(x)
        halves = map(nn.gelu, Halves(channels, dtype=self.dtype, name="in_project")(y))
        mixed = []
        for i, (half, tokens) in enumerate(zip(halves, ("grid", "block"), strict=True)):
            layout = Layout(tokens, self.side)
            mixing = Mixing(nn.initializers.ones, self.dtype, name=f"Dense_{i}")
            mixed.append(layout.join(mixing(layout.split(half)), x.shape))
        return Rejoined(channels, dtype=self.dtype, name="out_project")(*mixed)
