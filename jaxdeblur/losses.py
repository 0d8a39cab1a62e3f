"""Training losses of batches `[B, H, W, 3]`, float32 scalars."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdeblur import metrics


def l1(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Mean absolute difference over all pixels and channels."""
    return jnp.abs(restored - sharp).mean()


def mse(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Mean squared difference over all pixels and channels."""
    return jnp.square(restored - sharp).mean()


def charbonnier(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Mean of `sqrt(difference**2 + 0.001**2)` over all, an L1 that is smooth at zero.

    References:
      Lai et al., "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution",
      CVPR 2017.
    """
    return jnp.sqrt(jnp.square(restored - sharp) + 1e-3**2).mean()


def psnr(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Mean over images of the decibels by which their MSE exceeds 1e-4, `10 log10(1 + MSE / 1e-4)`.

    What PSNR reports: an image half as wrong counts the same, whether it was hard or easy. L1 and
    MSE hear the hard images alone, and let a network harm those that need little. Below 40 dB; what
    is better already counts less and less.

    References:
      Chen et al., "HINet: Half Instance Normalization Network for Image Restoration", CVPRW 2021,
      whose loss has no floor.
    """
    errors = jnp.square(restored - sharp).mean((1, 2, 3))
    return 10 * jnp.log10(1 + errors / 1e-4).mean()


def negative_psnr(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Minus the mean PSNR over images, `10 log10(MSE + 1e-8)` in decibels.

    References:
      Chen et al., "HINet: Half Instance Normalization Network for Image Restoration", CVPRW 2021;
      NAFNet is trained with it.
    """
    errors = jnp.square(restored - sharp).mean((1, 2, 3))
    return 10 * jnp.log10(errors + 1e-8).mean()


def charbonnier_frequency(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """`charbonnier`, and a tenth of the mean absolute difference of the Fourier transforms.

    The transform, over both axes, is not normalised: it counts differences of large areas.

    References:
      Tu et al., "MAXIM: Multi-Axis MLP for Image Processing", CVPR 2022, after Cho et al.,
      "Rethinking Coarse-to-Fine Approach in Single Image Deblurring", ICCV 2021.
    """
    difference = jnp.fft.rfft2((restored - sharp).astype(jnp.float32), axes=(1, 2))
    parts = jnp.abs(difference.real).mean() + jnp.abs(difference.imag).mean()
    return charbonnier(restored, sharp) + 0.1 * parts / 2


def ssim_l1(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """`0.84 * (1 - SSIM) + 0.16 * L1`: structure for the eye, and the level where it is flat.

    Images of 11 pixels a side or more; SSIM is that of `metrics.ssim`, at one scale.

    References:
      Zhao et al., "Loss Functions for Image Restoration With Neural Networks", IEEE TCI 2017, with
      SSIM at several scales.
    """
    structure = 1 - metrics.ssim(restored, sharp).mean()
    return 0.84 * structure + 0.16 * l1(restored, sharp)


LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "l1": l1,
    "mse": mse,
    "charbonnier": charbonnier,
    "charbonnier_frequency": charbonnier_frequency,
    "psnr": psnr,
    "negative_psnr": negative_psnr,
    "ssim_l1": ssim_l1,
}
