"""The convolutions that networks are made of, as functions, in TensorFlow's conventions.

Arrays are NHWC (`B` batch, `H W` pixels, `C` channels); kernels are `[K, K, in, out]`, those of
transposed convolutions `[K, K, out, in]`, as in Keras. 'SAME' padding follows TensorFlow (the odd
pixel goes to the end), and a transposed convolution is the gradient of the convolution with the
same stride and padding.

Each is computed by `compiled` or, on a CPU, by `cpu`; the package's docstring says why. Only
reverse-mode derivatives are defined, since most of the formulations carry their own.

Of an image whose columns are divided among devices (`shares`), 'SAME' padding adds the columns of
the neighbours.
"""

from __future__ import annotations

import functools
import math
import operator
import os
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxdeblur.convolutions import compiled, cpu, depthwise, shares
from jaxdeblur.errors import InputError

Padding = Literal["SAME", "VALID"]

# Names in the environment how a CPU convolves: "own" (the default), by this package, or "compiler".
SWITCH = "JAXDEBLUR_CONVOLUTIONS"


@functools.partial(jax.jit, static_argnames=("stride", "dilation", "padding", "own"))
def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = "SAME",
    own: bool = True,
) -> jax.Array:
    """Convolution as deep learning means it (no kernel flip).

    Args:
      x: float `[B, H, W, in]`.
      kernel: float `[K, K, in, out]`.
      stride: pixels between outputs.
      dilation: pixels between the kernel's taps; 1 where there is a stride.
      padding: TensorFlow's 'SAME' (`[B, ceil(H/stride), ceil(W/stride), out]`) or 'VALID'.
      own: whether a CPU gets this package's formulation, which is quicker as a rule, and takes
        longer to compile.
    """
    if stride > 1 and dilation > 1:
        raise ValueError(f"stride={stride} and dilation={dilation}: one of them must be 1")
    extent = (kernel.shape[0] - 1) * dilation + 1
    pads = lax.padtype_to_pads(x.shape[1:3], (extent, extent), (stride, stride), padding)
    if shares.is_share():
        x, pads = shares.widened(x, pads[1]), [pads[0], (0, 0)]
    border: compiled.Border = (pads[0], pads[1])
    options = {"border": border, "stride": stride, "dilation": dilation}
    elsewhere = functools.partial(compiled.convolve, **options)
    if not own:
        return elsewhere(x, kernel)
    return _by_platform(functools.partial(cpu.convolve, **options), elsewhere, x, kernel)


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
    elsewhere = functools.partial(compiled.transposed_convolve, **options)
    y: Any = _by_platform(on_cpu, elsewhere, x, kernel)
    return y[:, :, before * stride : width - after * stride]


@jax.jit
def depthwise_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves each channel by itself, with zeros beyond the border.

    Args:
      x: float `[B, H, W, C]`.
      kernel: float `[K, K, 1, C]`, K odd.

    Returns:
      `[B, H, W, C]`.
    """
    return _by_platform(depthwise.depthwise_convolve, compiled.depthwise_convolve, x, kernel)


def _by_platform(on_cpu: Callable, elsewhere: Callable, x: jax.Array, kernel: jax.Array):
    """One of two formulations of the same function of `x` and `kernel`."""
    how = os.environ.get(SWITCH) or "own"
    if how not in ("own", "compiler"):
        raise InputError(f"{SWITCH} = {how!r} must be 'own' or 'compiler'")
    if how == "compiler":
        return elsewhere(x, kernel)
    return _chosen(on_cpu, elsewhere, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chosen(on_cpu: Callable, elsewhere: Callable, x: jax.Array, kernel: jax.Array):
    """The program holds both until it is compiled, for one platform."""
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _chosen_forward(on_cpu, elsewhere, x, kernel):
    return _chosen(on_cpu, elsewhere, x, kernel), (x, kernel)


def _chosen_backward(on_cpu, elsewhere, residuals, cotangent):
    def gradients(function):
        return lambda x, kernel, cotangent: jax.vjp(function, x, kernel)[1](cotangent)

    return lax.platform_dependent(
        *residuals, cotangent, cpu=gradients(on_cpu), default=gradients(elsewhere)
    )


_chosen.defvjp(_chosen_forward, _chosen_backward)


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
