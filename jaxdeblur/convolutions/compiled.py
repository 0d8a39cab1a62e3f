"""The compiler's convolutions, which GPUs and TPUs get; arguments as those of `cpu`."""

from __future__ import annotations

import functools

import jax
from jax import lax

Border = tuple[tuple[int, int], tuple[int, int]]  # zeros (before, after) along H and along W


def convolve(x, kernel, border: Border, stride: int, dilation: int, spread: int = 1):
    """The compiler's convolution; `spread` puts that many pixels, less one, between inputs."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=border,
        lhs_dilation=(spread, spread),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def transposed_convolve(x, kernel, stride: int, crop: int, height: int, width: int):
    """The convolution of the inputs spread apart, which is what the compiler knows."""
    before = kernel.shape[0] - 1 - crop
    # Whatever gives the output's size.
    border = tuple(
        (before, out - (size - 1) * stride - 1 + crop)
        for size, out in zip(x.shape[1:3], (height, width), strict=True)
    )
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return convolve(x, turned, (border[0], border[1]), 1, 1, spread=stride)


def _transposed_forward(x, kernel, *options):
    return transposed_convolve(x, kernel, *options), (x, kernel)


def _transposed_backward(stride, crop, height, width, residuals, cotangent):
    """Plain convolutions, with input and cotangent in exchanged roles.

    The rule that JAX derives for the kernel spreads the inputs apart once more, a form without a
    quick implementation.
    """
    x, kernel = residuals
    after = [
        (size - 1) * stride + kernel.shape[0] - out - crop
        for size, out in zip(x.shape[1:3], (height, width), strict=True)
    ]
    border: Border = ((crop, after[0]), (crop, after[1]))
    x_gradient, kernel_vjp = jax.vjp(lambda k: convolve(cotangent, k, border, stride, 1), kernel)
    return x_gradient, kernel_vjp(x)[0]


transposed_convolve.defvjp(_transposed_forward, _transposed_backward)


def depthwise_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves the channels of `[B, H, W, C]` with `[K, K, 1, C]`, zeros beyond the border."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )
