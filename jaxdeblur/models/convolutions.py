"""The convolutions of the three networks as functions, in TensorFlow's conventions.

Arrays are NHWC (`B` batch, `H W` pixels, `C` channels); kernels are `[K, K, in, out]`, those of
transposed convolutions `[K, K, out, in]`, as in Keras. 'SAME' padding follows TensorFlow (the odd
pixel goes to the end), and a transposed convolution is the gradient of the convolution with the
same stride and padding.

What depends on the platform lives here and nowhere else. On a GPU or TPU a convolution is the
compiler's own. On a CPU, XLA falls well short of its own matrix products with it, most of all in
the weight gradient, so there one of stride 1 is written as a matrix product (see `_as_matmul`); the
tests hold both against each other. Reverse-mode derivatives only: the
functions carry their own.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Padding = Literal["SAME", "VALID"]
Border = tuple[tuple[int, int], tuple[int, int]]  # zeros (before, after) along H and along W

# The matrix-product form pays while its temporary array stays near the cache. Largest number of
# its elements per channel of the thicker side; measured on a Zen 3 core with 32 MB of L3 cache.
_MATMUL_LIMIT = 80_000


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
      dilation: pixels between the kernel's taps.
      padding: TensorFlow's 'SAME' (`[B, ceil(H/stride), ceil(W/stride), out]`) or 'VALID'.
    """
    extent = (kernel.shape[0] - 1) * dilation + 1
    pads = lax.padtype_to_pads(x.shape[1:3], (extent, extent), (stride, stride), padding)
    border: Border = (pads[0], pads[1])
    if stride > 1:
        return _by_compiler(x, kernel, border, stride=stride, dilation=dilation)
    return _convolve_unit_stride(x, kernel, border, dilation)


def _by_compiler(x, kernel, border: Border, *, stride=1, dilation=1, spread=1) -> jax.Array:
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_unit_stride(x, kernel, border: Border, dilation: int) -> jax.Array:
    compiled = functools.partial(_by_compiler, border=border, dilation=dilation)
    if not _matmul_pays(x.shape, kernel.shape):
        return compiled(x, kernel)
    as_matmul = functools.partial(_as_matmul, border=border, dilation=dilation)
    return lax.platform_dependent(x, kernel, cpu=as_matmul, default=compiled)


def _unit_stride_forward(x, kernel, border, dilation):
    return _convolve_unit_stride(x, kernel, border, dilation), (x, kernel)


def _unit_stride_backward(border, dilation, residuals, cotangent):
    x, kernel = residuals

    def compiled(x, kernel, cotangent):
        _, vjp = jax.vjp(lambda x, k: _by_compiler(x, k, border, dilation=dilation), x, kernel)
        return vjp(cotangent)

    if not _matmul_pays(x.shape, kernel.shape):
        return compiled(x, kernel, cotangent)
    as_matmul = functools.partial(_matmul_gradients, border=border, dilation=dilation)
    return lax.platform_dependent(x, kernel, cotangent, cpu=as_matmul, default=compiled)


_convolve_unit_stride.defvjp(_unit_stride_forward, _unit_stride_backward)


def _matmul_pays(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> bool:
    batch, height, width, _ = x_shape
    taps, _, *features = kernel_shape
    elements = batch * height * width * taps**2 * min(features)
    return taps <= 3 and elements <= _MATMUL_LIMIT * max(features)


def _as_matmul(x, kernel, border: Border, dilation: int) -> jax.Array:
    """A convolution of stride 1 as one matrix product.

    The product goes on the side with fewer channels. With few input channels, the K*K shifts of
    the input stand side by side and are multiplied at once (`im2col`). With few output channels,
    the input is multiplied by all K*K taps at once, and the products are shifted and added.
    Either way the one temporary array has K*K times the thinner side's channels.
    """
    taps, _, features_in, features_out = kernel.shape
    height, width = (
        size + sum(pads) - (taps - 1) * dilation
        for size, pads in zip(x.shape[1:3], border, strict=True)
    )
    shifts = list(_shifts(taps, border, dilation))
    if features_in < features_out:
        windows = [_window(x, *shift, height, width) for shift in shifts]
        columns = jnp.concatenate(windows, axis=-1)  # [B, H, W, K*K*in]
        return columns @ kernel.reshape(-1, features_out)
    products = x @ _taps_last(kernel)  # [B, H, W, K*K*out]
    parts = lax.split(products, (features_out,) * taps**2, axis=-1)
    windows = [
        _window(part, *shift, height, width) for part, shift in zip(parts, shifts, strict=True)
    ]
    return functools.reduce(operator.add, windows)


def _matmul_gradients(x, kernel, cotangent, border: Border, dilation: int):
    """The gradients of `_as_matmul`: the same two forms, with the roles exchanged."""
    taps, _, features_in, features_out = kernel.shape
    height, width = x.shape[1:3]
    shifts = list(_shifts(taps, border, dilation))
    if features_in < features_out:
        windows = [_window(x, *shift, *cotangent.shape[1:3]) for shift in shifts]
        columns = jnp.concatenate(windows, axis=-1)
        kernel_gradient = _sum_outer(columns, cotangent).reshape(kernel.shape)
        products = cotangent @ kernel.reshape(-1, features_out).T  # [B, H, W, K*K*in]
        parts = lax.split(products, (features_in,) * taps**2, axis=-1)
        windows = [
            _window(part, -row, -column, height, width)
            for part, (row, column) in zip(parts, shifts, strict=True)
        ]
        return functools.reduce(operator.add, windows), kernel_gradient
    windows = [_window(cotangent, -row, -column, height, width) for row, column in shifts]
    columns = jnp.concatenate(windows, axis=-1)  # [B, H, W, K*K*out]
    kernel_gradient = _sum_outer(x, columns).reshape(features_in, taps, taps, features_out)
    return columns @ _taps_last(kernel).T, kernel_gradient.transpose(1, 2, 0, 3)


def _shifts(taps: int, border: Border, dilation: int) -> Iterator[tuple[int, int]]:
    """The pixel that each tap reads for output (0, 0), row-major over the kernel."""
    for row in range(taps):
        for column in range(taps):
            yield row * dilation - border[0][0], column * dilation - border[1][0]


def _window(x, row: int, column: int, height: int, width: int) -> jax.Array:
    """Returns `x[:, row : row + height, column : column + width]`, zero where x has no pixel."""
    rows = (-row, row + height - x.shape[1], 0)
    columns = (-column, column + width - x.shape[2], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))


def _taps_last(kernel: jax.Array) -> jax.Array:
    """`[K, K, in, out]` to `[in, K*K*out]`."""
    return kernel.transpose(2, 0, 1, 3).reshape(kernel.shape[2], -1)


def _sum_outer(a: jax.Array, b: jax.Array) -> jax.Array:
    """Sums over all pixels the outer product of `[B, H, W, M]` and `[B, H, W, N]`: `[M, N]`."""
    return jnp.einsum("bhwm,bhwn->mn", a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def transposed_convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = "SAME"
) -> jax.Array:
    """The linear transpose of `convolve` with the same kernel, stride and padding.

    Its own gradients are therefore plain convolutions. They are spelled out because the rule that
    JAX derives for the kernel dilates the cotangent, a form that XLA's CPU backend computes ten
    times slower, and more, than the weight gradient of a convolution, which it is.

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
    cropped = overlap // 2 if padding == "SAME" else 0
    # One input every `stride` outputs; the convolution's padding becomes a crop of the result.
    before = kernel.shape[0] - 1 - cropped
    after = stride - 1 + (cropped if padding == "SAME" else overlap)
    border = ((before, after), (before, after))
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    if stride == 1:
        return _convolve_unit_stride(x, flipped, border, 1)
    return _by_compiler(x, flipped, border, spread=stride)


def _transposed_convolve_forward(x, kernel, stride, padding):
    return transposed_convolve(x, kernel, stride, padding), (x, kernel)


def _transposed_convolve_backward(stride, padding, residuals, cotangent):
    x, kernel = residuals
    # The transpose of the transpose, for both arguments: input and cotangent change roles.
    x_gradient, kernel_vjp = jax.vjp(
        lambda k: convolve(cotangent, k, stride=stride, padding=padding), kernel
    )
    return x_gradient, kernel_vjp(x)[0]


transposed_convolve.defvjp(_transposed_convolve_forward, _transposed_convolve_backward)


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
    border = (taps // 2, taps // 2)
    padded = jnp.pad(image, ((0, 0), border, border, (0, 0)))
    # Split once: the gradient of a split is one concatenation, that of K*K slices K*K sums.
    weights = lax.split(kernels, (1,) * taps**2, axis=-1)
    windows = [
        padded[:, row : row + height, column : column + width]
        for row in range(taps)
        for column in range(taps)
    ]
    products = [weight * window for weight, window in zip(weights, windows, strict=True)]
    return functools.reduce(operator.add, products)
