"""Features of several levels and maps, joined along the channels: the arithmetic arranged anew.

What it gives is the same as published to rounding, in fewer products:

- maps that follow one another without anything between are multiplied into one beforehand;
- a map commutes with a change of size, and is applied where there are fewer pixels;
- what would be joined along the channels and then mapped is mapped in parts and added.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from jaxdeblur.models.layers import Layer, parameter, resize_linear

lecun = nn.initializers.lecun_normal()


class Affine(NamedTuple):
    """A map of channels, `x @ kernel + bias`."""

    kernel: jax.Array
    bias: jax.Array

    def then(self, kernel: jax.Array) -> Affine:
        """This map and a product after it, as one."""
        return Affine(self.kernel @ kernel, self.bias @ kernel)

    def of(self, x: jax.Array) -> jax.Array:
        """The map of features, in their type."""
        kernel, bias = (part.astype(x.dtype) for part in self)
        return x @ kernel + bias


def affine_parameters(
    module: nn.Module,
    shape: tuple[int, ...],
    kernel_init: Initializer = lecun,
    bias_init: Initializer = nn.initializers.zeros,
) -> Affine:
    """A module's parameters `kernel`, of that shape, and `bias`."""
    kernel = parameter(module, "kernel", kernel_init, shape)
    return Affine(kernel, parameter(module, "bias", bias_init, shape[-1:]))


class Parameters(nn.Module):
    """The parameters of a map, for whoever applies it."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> Affine:
        return affine_parameters(self, self.shape)


class ResizedParameters(nn.Module):
    """`Parameters` under the name that the published module gives them, `Conv_0`."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> Affine:
        kernel, bias = Parameters(self.shape, name="Conv_0")()
        return Affine(kernel[0, 0], bias)


class Plain(NamedTuple):
    """Features of a level's own size, `[B, H, W, C]`."""

    features: jax.Array

    @property
    def channels(self) -> int:
        return self.features.shape[-1]

    def mapped(self, kernel: jax.Array) -> jax.Array:
        """The features' product with `[C, F]`."""
        return self.features @ kernel.astype(self.features.dtype)

    def products(self, pixels: int) -> int:
        """How many it takes to make the part, at so many pixels."""
        del pixels
        return 0


class Resized(NamedTuple):
    """Features of another level, brought to a level's size and mapped.

    Attributes:
      features: `[B, H, W, C]`.
      scale: by which the size changes, 4 to 1/4.
      map: of the channels.
    """

    features: jax.Array
    scale: float
    map: Affine

    @property
    def channels(self) -> int:
        return self.map.bias.shape[0]

    def mapped(self, kernel: jax.Array) -> jax.Array:
        """The product with `[C, F]`, where there are fewer pixels."""
        affine = self.map.then(kernel)
        if self.scale < 1:
            return affine.of(resize_linear(self.features, self.scale))
        return resize_linear(affine.of(self.features), self.scale)

    def products(self, pixels: int) -> int:
        """See `Plain`."""
        return self.map.kernel.size * pixels


class Doubled(NamedTuple):
    """Features of the level below, `[B, H, W, C]`, and the 2x2 kernel that doubles their size."""

    features: jax.Array
    map: Affine

    @property
    def channels(self) -> int:
        return self.map.bias.shape[0]

    def mapped(self, kernel: jax.Array) -> jax.Array:
        """The product with `[C, F]`, of four pixels at once."""
        x, affine = self.features, self.map.then(kernel)
        batch, height, width, _ = x.shape
        # Flax has the pixels of a transposed convolution's kernel in the reverse order.
        merged = affine.kernel[::-1, ::-1].transpose(2, 0, 1, 3)
        y = x @ merged.reshape(merged.shape[0], -1).astype(x.dtype)
        y = y.reshape(batch, height, width, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
        return y.reshape(batch, 2 * height, 2 * width, -1) + affine.bias.astype(x.dtype)

    def products(self, pixels: int) -> int:
        """See `Plain`; each number of the kernel meets every pixel of the level below."""
        return self.map.kernel.size * pixels // 4


Part = Plain | Resized | Doubled


class Joined(Layer):
    """`concatenate(parts) @ kernel + bias`, as a sum over the parts."""

    features: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, parts: Sequence[Part]) -> jax.Array:
        """Maps parts of a size to `[B, H, W, features]`."""
        ends = list(itertools.accumulate(part.channels for part in parts))
        kernel, bias = affine_parameters(self, (1, 1, ends[-1], self.features))
        kernels = jnp.split(kernel[0, 0], ends[:-1])
        products = [part.mapped(kernel) for part, kernel in zip(parts, kernels, strict=True)]
        total = functools.reduce(operator.add, products)
        return total + bias.astype(total.dtype)

    def products(self, arguments: tuple[Any, ...], y: jax.Array) -> int:
        """As published: those of the parts' own maps, and of the map of all of them."""
        (parts,) = arguments
        pixels = y.size // y.shape[-1]
        own = sum(part.products(pixels) for part in parts)
        return own + self.variables["params"]["kernel"].size * pixels


class Halves(Layer):
    """`split(x @ kernel + bias)`, each half by itself: nothing is taken apart afterwards."""

    features: int
    kernel_init: Initializer = lecun
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps `[..., C]` to twice `[..., features]`."""
        affine = affine_parameters(self, (x.shape[-1], 2 * self.features), self.kernel_init)
        x, kernel, bias = promote_dtype(x, *affine, dtype=self.dtype)
        first, second = zip(jnp.split(kernel, 2, -1), jnp.split(bias, 2), strict=True)
        return Affine(*first).of(x), Affine(*second).of(x)

    def products(self, arguments: tuple[Any, ...], y: Any) -> int:
        """See `Layer`; the two halves together."""
        return super().products(arguments, y[0])


class Rejoined(Layer):
    """`concatenate([first, second]) @ kernel + bias`, as a sum of two products."""

    features: int
    kernel_init: Initializer = lecun
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, first: jax.Array, second: jax.Array) -> jax.Array:
        """Maps twice `[..., C]` to `[..., features]`."""
        affine = affine_parameters(self, (2 * first.shape[-1], self.features), self.kernel_init)
        first, second, kernel, bias = promote_dtype(first, second, *affine, dtype=self.dtype)
        upper, lower = jnp.split(kernel, 2)
        return first @ upper + second @ lower + bias
