"""The convolutions of the three networks as functions, in TensorFlow's conventions.

Arrays are NHWC (`B` batch, `H W` pixels, `C` channels); kernels are `[K, K, in, out]`, those of
transposed convolutions `[K, K, out, in]`, as in Keras. 'SAME' padding follows TensorFlow (the odd
pixel goes to the end), and a transposed convolution is the gradient of the convolution with the
same stride and padding.

Two formulations stand behind each: the compiler's own, here, which GPUs and TPUs get, and the one
for CPUs, in `cpu`. The program is built for both and keeps the one of the platform that it is
compiled for. Reverse-mode derivatives only, since most of the formulations carry their own.

Of an image whose columns are divided among devices (`shares`), 'SAME' padding adds those of the
shares beside it.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxdeblur.models import cpu, shares

Padding = Literal["SAME", "VALID"]


@functools.partial(jax.jit, static_argnames=("stride", "dilation", "padding"))
def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = "SAME",
) -> jax.Array:
    """Convolution as deep learning means it (no kernel flip).

    Args:
      x: float `[B, H, W, in]`.
      kernel: float `[K, K, in, out]`.
      stride: pixels between outputs.
      dilation: pixels between the kernel's taps; 1 where there is a stride.
      padding: TensorFlow's 'SAME' (`[B, ceil(H/stride), ceil(W/stride), out]`) or 'VALID'.
    """
    if stride > 1 and dilation > 1:
        raise ValueError(f"stride={stride} and dilation={dilation}: one of them must be 1")
    extent = (kernel.shape[0] - 1) * dilation + 1
    pads = lax.padtype_to_pads(x.shape[1:3], (extent, extent), (stride, stride), padding)
    if shares.is_share():
        x, pads = shares.widened(x, pads[1]), [pads[0], (0, 0)]
    border: cpu.Border = (pads[0], pads[1])
    options = {"border": border, "stride": stride, "dilation": dilation}
    on_cpu = functools.partial(cpu.convolve, **options)
    return _by_platform(on_cpu, functools.partial(_compiled, **options), x, kernel)


@functools.partial(jax.jit, static_argnames=("stride", "padding"))
def transposed_convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = "SAME"
) -> jax.Array:
    """The linear transpose of `convolve` with the same kernel, stride and padding.

    Args:
      x: float `[B, H, W, in]`.
      kernel: float `[K, K, out, in]`.
      stride: output pixels between inputs.
      padding: 'SAME' gives `[B, H*stride, W*stride, out]`, 'VALID' the size whose 'VALID'
        convolution gives `H, W`.

    References:
      Zeiler et al., "Deconvolutional Networks", CVPR 2010; `tf.nn.conv2d_transpose`.
    """
    overlap = max(kernel.shape[0] - stride, 0)
    crop = overlap // 2 if padding == "SAME" else 0
    before = after = 0
    if shares.is_share():  # so many inputs beside the one that it lies at an output depends on
        before, after = (kernel.shape[0] - 1 - crop) // stride, (stride - 1 + crop) // stride
        x = shares.widened(x, (before, after))
    height, width = (
        size * stride + (overlap if padding == "VALID" else 0) for size in x.shape[1:3]
    )
    options = {"stride": stride, "crop": crop, "height": height, "width": width}
    on_cpu = functools.partial(cpu.transposed_convolve, **options)
    y: Any = _by_platform(on_cpu, functools.partial(_compiled_transposed, **options), x, kernel)
    return y[:, :, before * stride : width - after * stride]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_platform(on_cpu: Callable, elsewhere: Callable, x: jax.Array, kernel: jax.Array):
    """One of two formulations of the same function of `x` and `kernel`."""
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _by_platform_forward(on_cpu, elsewhere, x, kernel):
    return _by_platform(on_cpu, elsewhere, x, kernel), (x, kernel)


def _by_platform_backward(on_cpu, elsewhere, residuals, cotangent):
    def gradients(function):
        return lambda x, kernel, cotangent: jax.vjp(function, x, kernel)[1](cotangent)

    return lax.platform_dependent(
        *residuals, cotangent, cpu=gradients(on_cpu), default=gradients(elsewhere)
    )


_by_platform.defvjp(_by_platform_forward, _by_platform_backward)


def _compiled(x, kernel, border: cpu.Border, stride: int, dilation: int, spread: int = 1):
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
def _compiled_transposed(x, kernel, stride: int, crop: int, height: int, width: int):
    """The convolution of the inputs spread apart, which is what the compiler knows."""
    before = kernel.shape[0] - 1 - crop
    # Whatever gives the output's size.
    border = tuple(
        (before, out - (size - 1) * stride - 1 + crop)
        for size, out in zip(x.shape[1:3], (height, width), strict=True)
    )
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return _compiled(x, turned, (border[0], border[1]), 1, 1, spread=stride)


def _compiled_transposed_forward(x, kernel, *options):
    return _compiled_transposed(x, kernel, *options), (x, kernel)


def _compiled_transposed_backward(stride, crop, height, width, residuals, cotangent):
    """Plain convolutions, with input and cotangent in exchanged roles.

    The rule that JAX derives for the kernel spreads the inputs apart once more, a form without a
    quick implementation.
    """
    x, kernel = residuals
    after = [
        (size - 1) * stride + kernel.shape[0] - out - crop
        for size, out in zip(x.shape[1:3], (height, width), strict=True)
    ]
    border: cpu.Border = ((crop, after[0]), (crop, after[1]))
    x_gradient, kernel_vjp = jax.vjp(lambda k: _compiled(cotangent, k, border, stride, 1), kernel)
    return x_gradient, kernel_vjp(x)[0]


_compiled_transposed.defvjp(_compiled_transposed_forward, _compiled_transposed_backward)


def adaptive_convolve(image: jax.Array, kernels: jax.Array) -> jax.Array:
    """Filters every pixel of an image with a kernel of its own, zero-padded at the border.

    A sum over the K*K shifts of the image: extracting the patches first would make an array K*K
    times the image.

    Args:
      image: float `[B, H, W, C]`; the kernel acts on each channel alike.
      kernels: float `[B, H, W, K*K]`, K odd, row-major over the window; not normalised.

    Returns:
      `[B, H, W, C]`, of the promoted type of both.

    References:
      Sim & Kim, "A Deep Motion Deblurring Network Based on Per-Pixel Adaptive Kernels With
      Residual Down-Up and Up-Down Modules", CVPRW 2019.
    """
    taps = math.isqrt(kernels.shape[-1])
    height, width = image.shape[1:3]
    rows = columns = (taps // 2, taps // 2)
    if shares.is_share():
        image, columns = shares.widened(image, columns), (0, 0)
    padded = jnp.pad(image, ((0, 0), rows, columns, (0, 0)))
    # Split once: the gradient of a split is one concatenation, that of K*K slices K*K sums.
    weights = lax.split(kernels, (1,) * taps**2, axis=-1)
    windows = [
        padded[:, row : row + height, column : column + width]
        for row in range(taps)
        for column in range(taps)
    ]
    products = [weight * window for weight, window in zip(weights, windows, strict=True)]
    return functools.reduce(operator.add, products)
