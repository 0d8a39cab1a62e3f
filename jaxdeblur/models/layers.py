"""The layers that the three networks share: convolutions with parameters, input checks.

Shapes and padding are those of `convolutions`. Parameters are float32; `dtype` is the
arithmetic's type, by default that of input and parameters together.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from jaxdeblur.convolutions import Padding, convolve, transposed_convolve
from jaxdeblur.errors import InputError

Array = TypeVar("Array", jax.Array, np.ndarray)


def leaky_relu(x: jax.Array) -> jax.Array:
    """LeakyReLU with Keras's default slope, 0.3, which all three networks use."""
    return nn.leaky_relu(x, negative_slope=0.3)


def current_frame(blurred: Array) -> Array:
    """Returns the frame that is restored: `[..., 3]` of an image, or of frames t-1, t, t+1."""
    return blurred if blurred.shape[-1] == 3 else blurred[..., 3:6]


def check_input(blurred: jax.Array, network: str, *, multiple: int = 1, minimum: int = 1) -> None:
    """Raises InputError unless `blurred` is `[B, H, W, 3 or 9]` of a size the network takes."""
    shape = blurred.shape
    if len(shape) != 4 or shape[-1] not in (3, 9):
        raise InputError(
            f"blurred has shape {shape}; {network} takes [B, H, W, C] with C = 3 (an image) "
            "or C = 9 (previous, current and next frame)"
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


class Conv(nn.Module):
    """`convolve` with a bias and learned parameters `kernel` and `bias`."""

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    padding: Padding = "SAME"
    kernel_init: Initializer = nn.initializers.glorot_uniform()
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return (
            convolve(x, kernel, stride=self.stride, dilation=self.dilation, padding=self.padding)
            + bias
        )


class ConvTranspose(nn.Module):
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
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return transposed_convolve(x, kernel, self.stride, self.padding) + bias
