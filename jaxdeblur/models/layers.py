"""The layers that the networks share: convolutions with parameters, input checks.

Shapes and padding are those of `convolutions`. Parameters are float32; `dtype` is the
arithmetic's type, by default that of input and parameters together.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import operator
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from jaxdeblur.convolutions import (
    Padding,
    convolve,
    depthwise_convolve,
    pointwise_convolve,
    transposed_convolve,
)
from jaxdeblur.errors import InputError

Array = TypeVar("Array", jax.Array, np.ndarray)


def leaky_relu(x: jax.Array) -> jax.Array:
    """LeakyReLU with Keras's default slope, 0.3, which the networks of Keras use."""
    return nn.leaky_relu(x, negative_slope=0.3)


def current_frame(blurred: Array) -> Array:
    """Returns the frame that is restored: `[..., 3]` of an image, or of frames t-1, t, t+1."""
    return blurred if blurred.shape[-1] == 3 else blurred[..., 3:6]


def check_input(blurred: jax.Array, network: str, *, multiple: int = 1, minimum: int = 1) -> None:
    """Raises InputError unless `blurred` is float `[B, H, W, 3 or 9]` of a size that is taken."""
    shape = blurred.shape
    if len(shape) != 4 or shape[-1] not in (3, 9):
        raise InputError(
            f"blurred has shape {shape}; {network} takes [B, H, W, C] with C = 3 (an image) "
            "or C = 9 (previous, current and next frame)"
        )
    if not jnp.issubdtype(blurred.dtype, jnp.floating):
        raise InputError(
            f"blurred has type {blurred.dtype}; {network} takes floats in [0, 1] (what "
            "jaxdeblur.load gives takes integers as well)"
        )
    if any(size < minimum for size in shape[1:3]):
        raise InputError(
            f"image size {shape[1:3]} is too small for {network}: {minimum} pixels at least"
        )
    if any(size % multiple for size in shape[1:3]):
        raise InputError(
            f"image size {shape[1:3]} is not a multiple of {multiple} for {network}; "
            "pad it (jnp.pad, mode='reflect') and crop the result"
        )


def resize_linear(x: jax.Array, scale: float) -> jax.Array:
    """Changes the size by linear interpolation, as `jax.image.resize` does, antialiased.

    A sum of shifted copies along each axis, where `jax.image.resize` multiplies by a matrix.

    Args:
      x: float `[B, H, W, C]`.
      scale: of both sides, a power of two; they must be divisible.
    """
    if scale == 1:
        return x
    resize = _shrink_axis if scale < 1 else _enlarge_axis
    factor = round(max(scale, 1 / scale))
    # The axis first that leaves, or makes, less for the other.
    return resize(resize(x, factor, 1), factor, 2)


def _enlarge_axis(x: jax.Array, factor: int, axis: int) -> jax.Array:
    """Each pixel becomes `factor` ones, whose weights are those of its two neighbours and its."""
    size = x.shape[axis]
    pads = [(int(i == axis),) * 2 for i in range(4)]
    padded = jnp.pad(x, pads, mode="edge")
    before, after = (jax.lax.slice_in_dim(padded, n, n + size, axis=axis) for n in (0, 2))
    pixels = []
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5  # from the pixel's centre
        neighbour = before if offset < 0 else after
        pixels.append((1 - abs(offset)) * x + abs(offset) * neighbour)
    shape = [*x.shape[:axis], size * factor, *x.shape[axis + 1 :]]
    return jnp.stack(pixels, axis + 1).reshape(shape)


def _shrink_axis(x: jax.Array, factor: int, axis: int) -> jax.Array:
    """Sums of `2 * factor` pixels, whose weights fall off to both sides."""
    size = x.shape[axis] // factor
    half = factor // 2
    pads = [(half, half) if i == axis else (0, 0) for i in range(4)]
    weights = [1 - abs(tap + 0.5 - factor) / factor for tap in range(2 * factor)]
    shape = [*x.shape[:axis], size + 1, factor, *x.shape[axis + 1 :]]
    phases = jnp.pad(x, pads).reshape(shape)

    def tap(number):
        first, phase = divmod(number, factor)
        column = jax.lax.index_in_dim(phases, phase, axis + 1, keepdims=False)
        return jax.lax.slice_in_dim(column, first, first + size, axis=axis)

    total = functools.reduce(operator.add, (w * tap(i) for i, w in enumerate(weights)))
    # At the ends, where some of the pixels are missing, the others weigh more.
    ends = np.full(size, factor, np.float32)
    ends[0] -= sum(weights[:half])
    ends[-1] -= sum(weights[:half])
    return total / jnp.asarray(ends, x.dtype).reshape([-1 if i == axis else 1 for i in range(4)])


def parameter(module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
    """`module.param(name, init, shape)`, without the check of a shape that is there already.

    Flax traces the initialiser for it, which takes as long as all the rest of a large network's
    trace. What is loaded has been checked before (`variables.check_shapes`).
    """
    if module.has_variable("params", name):
        return module.get_variable("params", name)
    if _zeros.get():  # as a variable, which takes no key of random numbers
        return module.variable("params", name, jnp.zeros, shape).value
    return module.param(name, init, shape)


# Whether first parameters are zeros, see `shapes_alone`.
_zeros = contextvars.ContextVar("_zeros", default=False)


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """Has `init` make zeros, for who wants shapes: to trace random numbers takes longer."""
    token = _zeros.set(True)
    try:
        yield
    finally:
        _zeros.reset(token)


class Layer(nn.Module):
    """A layer with a `kernel`, which it multiplies by."""

    def products(self, arguments: tuple[Any, ...], y: jax.Array) -> int:
        """How many multiplications an output takes, done directly, with what the call was given."""
        x = arguments[0]
        # Each number of the kernel meets every pixel of the smaller side once: of the output, of a
        # transposed convolution the input.
        pixels = min(x.size // x.shape[-1], y.size // y.shape[-1])
        return self.variables["params"]["kernel"].size * pixels


class Conv(Layer):
    """`convolve` with a bias and learned parameters `kernel` and `bias`; `own` as there."""

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    padding: Padding = "SAME"
    own: bool = True
    kernel_init: Initializer = nn.initializers.glorot_uniform()
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = parameter(self, "kernel", self.kernel_init, shape)
        bias = parameter(self, "bias", self.bias_init, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        options = {"stride": self.stride, "dilation": self.dilation, "padding": self.padding}
        return convolve(x, kernel, **options, own=self.own) + bias


class ConvTranspose(Layer):
    """`transposed_convolve` with a bias and learned parameters `kernel` and `bias`."""

    features: int
    kernel_size: int
    stride: int = 1
    padding: Padding = "SAME"
    kernel_init: Initializer = nn.initializers.glorot_uniform()
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, self.features, x.shape[-1])
        kernel = parameter(self, "kernel", self.kernel_init, shape)
        bias = parameter(self, "bias", self.bias_init, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return transposed_convolve(x, kernel, self.stride, self.padding) + bias


class Pointwise(Layer):
    """A 1x1 convolution: each pixel's channels times a matrix."""

    features: int
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        attention: jax.Array | None = None,
        scale: jax.Array | None = None,
    ) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H, W, features]`.

        Args:
          x: the features.
          attention: factors of their channels, of a shape that goes with theirs.
          scale: `[features]`, of what they are mapped to. The kernel is multiplied by it, which is
            less than the image; and products alone take the gradient from what the map is added
            to: along a chain of blocks XLA for CPUs would otherwise compute in each, and for each
            use, the sum of the gradients of all behind it.
        """
        channels = x.shape[-1]
        kernel = parameter(self, "kernel", self.kernel_init, (1, 1, channels, self.features))
        bias = None
        if self.use_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
        if scale is not None:
            kernel, bias = (part if part is None else part * scale for part in (kernel, bias))
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        if attention is not None and attention.size == channels:  # of a single image
            kernel = kernel * attention.reshape(channels, 1)
        elif attention is not None:
            x = x * attention
        y = pointwise_convolve(x, kernel[0, 0])
        return y if bias is None else y + bias.astype(y.dtype)


class DepthwiseConv(Layer):
    """`depthwise_convolve` with a bias and learned parameters `kernel` and `bias`."""

    kernel_size: int
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, 1, channels)
        kernel = parameter(self, "kernel", self.kernel_init, shape)
        bias = parameter(self, "bias", nn.initializers.zeros, (channels,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return depthwise_convolve(x, kernel) + bias


class Dense(Layer):
    """A map of the last axis, `x @ kernel + bias`, with learned parameters of these names."""

    features: int
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = parameter(self, "kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return pointwise_convolve(x, kernel) + bias


class LayerNorm(nn.Module):
    """Normalises the channels of each pixel; statistics are float32, of any arithmetic's type."""

    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = parameter(self, "scale", nn.initializers.ones, x.shape[-1:])
        bias = parameter(self, "bias", nn.initializers.zeros, x.shape[-1:])
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = wide.mean(-1, keepdims=True)
        variance = jnp.square(wide).mean(-1, keepdims=True) - jnp.square(mean)
        normalised = (wide - mean) * jax.lax.rsqrt(jnp.maximum(variance, 0) + 1e-6)
        return (normalised * scale + bias).astype(self.dtype or x.dtype)
