"""PSNR, SSIM and MSE per image, computed by dm-pix.

Images are float `[..., H, W, C]` in [0, 1] (RGB, nothing converted or cropped). Clip restored
images first: floats outside [0, 1] are refused, but inside `jax.jit`, where values are not known.
The results here are not quantised to 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdeblur.errors import InputError
from jaxdeblur.pixels import check_range

SSIM_WINDOW = 11  # pixels

# What every figure of this package means, printed with it.
PROTOCOL = (
    "RGB float32 in [0, 1], restored clipped, not quantised; per image, then the mean; "
    "SSIM 11x11 Gaussian sigma 1.5; infinite PSNR left out"
)


def mse(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Mean squared error per image: `[..., H, W, C]` twice to `[...]`.

    Raises:
      InputError: shapes differ, or the images are integers or outside [0, 1].
    """
    return _per_image(dm_pix.mse, *_checked(restored, sharp))


def psnr(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio per image, in dB: `[..., H, W, C]` twice to `[...]`.

    `10 * log10(1 / mse)`, and +inf for identical images.

    Raises:
      InputError: shapes differ, or the images are integers or outside [0, 1].
    """
    return _per_image(dm_pix.psnr, *_checked(restored, sharp))


def ssim(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Structural similarity per image: `[..., H, W, C]` twice to `[...]`, at most 1.

    H and W from 11: the 11x11 Gaussian window (sigma 1.5) stays inside the image. The mean over
    channels and pixels, with K1 = 0.01, K2 = 0.03 and range 1, as `tf.image.ssim` has it.

    Raises:
      InputError: shapes differ, or the images are integers, outside [0, 1] or smaller than the
        window.

    References:
      Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
      IEEE TIP 2004.
    """
    restored, sharp = _checked(restored, sharp)
    if min(sharp.shape[-3:-1]) < 11:
        raise InputError(f"image size {sharp.shape[-3:-1]} is smaller than SSIM's 11x11 window")
    return _per_image(dm_pix.ssim, restored, sharp)


def _per_image(metric: Callable, restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Applies a metric of `[N, H, W, C]` to images with any number of leading axes."""
    leading, image = sharp.shape[:-3], sharp.shape[-3:]
    return metric(restored.reshape(-1, *image), sharp.reshape(-1, *image)).reshape(leading)


def _checked(restored: jax.Array, sharp: jax.Array) -> tuple[jax.Array, jax.Array]:
    restored, sharp = jnp.asarray(restored), jnp.asarray(sharp)
    if restored.shape != sharp.shape or restored.ndim < 3:
        raise InputError(
            f"restored {restored.shape} and sharp {sharp.shape} must have one shape [..., H, W, C]"
        )
    for name, image in (("restored", restored), ("sharp", sharp)):
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise InputError(f"{name} has type {image.dtype}; convert it to float in [0, 1]")
        if not isinstance(image, Tracer):
            check_range(np.asarray(image), name)
    return restored.astype(jnp.float32), sharp.astype(jnp.float32)


# Every metric, by the name under which tables and logs have it.
METRICS = {"psnr": psnr, "ssim": ssim, "mse": mse}
