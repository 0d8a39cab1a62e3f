"""Depthwise convolution on a CPU: the sum of the image's shifts, each times its weights.

The compiler's own takes 40 times as long there; a sum of products is one pass over memory. So are
the gradients: that of the image is such a sum as well, and that of the kernel goes by rows, which
the caches hold for all of its taps.
"""

from __future__ import annotations

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_vjp
def depthwise_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves the channels of `[B, H, W, C]` with `[K, K, 1, C]`, zeros beyond the border."""
    taps, (height, width) = kernel.shape[0], x.shape[1:3]
    padded = _padded(x, taps)
    products = [
        padded[:, row : row + height, column : column + width] * kernel[row, column, 0]
        for row, column in itertools.product(range(taps), repeat=2)
    ]
    return functools.reduce(operator.add, products)


def _forward(x, kernel):
    return depthwise_convolve(x, kernel), (x, kernel)


def _backward(residuals, cotangent):
    x, kernel = residuals
    # Not fused with what it comes from, which each of the taps would compute anew.
    cotangent = lax.optimization_barrier(cotangent)
    gradient = _kernel_gradient(x, cotangent, kernel.shape[0])
    return depthwise_convolve(cotangent, kernel[::-1, ::-1]), gradient.astype(kernel.dtype)


depthwise_convolve.defvjp(_forward, _backward)


def _kernel_gradient(x: jax.Array, cotangent: jax.Array, taps: int) -> jax.Array:
    """The gradient `[K, K, 1, C]`, float32: each tap's products, summed row by row."""
    batch, height, width, channels = x.shape
    padded = lax.optimization_barrier(_padded(x, taps))
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def add_row(sums, row):
        given = lax.dynamic_index_in_dim(cotangent, row, 1, keepdims=False).astype(wide)
        lines = lax.dynamic_slice_in_dim(padded, row, taps, 1).astype(wide)
        products = [
            lines[:, line, column : column + width] * given
            for line, column in itertools.product(range(taps), repeat=2)
        ]
        return [total + product for total, product in zip(sums, products, strict=True)], None

    zeros = [jnp.zeros((batch, width, channels), wide)] * taps**2
    sums, _ = lax.scan(add_row, zeros, jnp.arange(height))
    return jnp.stack([total.sum((0, 1)) for total in sums]).reshape(taps, taps, 1, channels)


def _padded(x: jax.Array, taps: int) -> jax.Array:
    reach = taps // 2
    return jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
