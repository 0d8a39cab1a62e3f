"""The synthetic Gaussian blur of the CIFAR-10 experiment: how strong, and made in JAX.

Images are `[B, H, W, C]`, uint8 or float32 grey levels in [0, 255]; sigma is in pixels. The host
draws the sigmas; the blur is made inside the jitted step, batched, so that half of the bytes travel
and no core of the host works on it.

The published data were blurred by OpenCV's `GaussianBlur` on 8-bit images with automatic kernel
size. That function works in fixed point, and so does this one: the kernel has 8 fractional bits
(which is why the weakest blurs leave an image unchanged), and the result is rounded once, at the
end. All intermediate values are integers below 2**24, which float32 holds exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdeblur.data.source import Sample

_KERNEL_ONE = 256.0  # 1.0 in OpenCV's 8.8 fixed point


def kernel_radius(max_sigma: float) -> int:
    """Radius in pixels of OpenCV's automatic kernel for 8-bit images."""
    return (round(6 * max_sigma + 1) | 1) // 2


def gaussian_kernel(sigma: jax.Array, radius: int) -> jax.Array:
    """OpenCV's 8-bit Gaussian kernel, in units of 1/256.

    Args:
      sigma: float `[...]`, standard deviation in pixels, from 0 to one whose kernel fits.
      radius: `kernel_radius` of the largest sigma; kernels of smaller ones end in zeros.

    Returns:
      float32 `[..., 2 * radius + 1]`, integers that sum to 256.

    References:
      OpenCV, imgproc/smooth: automatic size `round(6 * sigma + 1) | 1`, and 8-bit weights that
      carry their rounding error inwards; the centre takes the rest.
    """
    sigma = jnp.maximum(jnp.asarray(sigma, jnp.float32), 1e-3)[..., None]
    support = (jnp.round(6 * sigma + 1).astype(jnp.int32) | 1) // 2
    distance = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * (distance / sigma) ** 2) * (jnp.abs(distance) <= support)
    weights = weights / weights.sum(-1, keepdims=True) * _KERNEL_ONE

    side = jnp.zeros((*weights.shape[:-1], 0))
    error = jnp.zeros(weights.shape[:-1])
    for i in range(radius):
        wanted = weights[..., i] + error
        rounded = jnp.round(wanted)
        error = wanted - rounded
        side = jnp.concatenate([side, rounded[..., None]], axis=-1)
    centre = _KERNEL_ONE - 2 * side.sum(-1, keepdims=True)
    return jnp.concatenate([side, centre, side[..., ::-1]], axis=-1)


def gaussian_blur(sharp: jax.Array, sigma: jax.Array, max_sigma: float = 3.0) -> jax.Array:
    """Blurs each image with a Gaussian of its own, as OpenCV does it on 8-bit images.

    Each pass is a sum of shifted products: XLA's CPU backend takes tens of times longer for the
    depthwise convolution that this is.

    Args:
      sharp: uint8 `[B, H, W, C]`, H and W above `kernel_radius(max_sigma)` (9 for 3 pixels).
      sigma: float `[B]` in [0, max_sigma], pixels; larger values are not detected.
      max_sigma: static bound that sets the number of shifts.

    Returns:
      uint8 `[B, H, W, C]`.

    References:
      `cv2.GaussianBlur(image, (0, 0), sigma)`, border reflected without its edge pixel.
    """
    radius = kernel_radius(max_sigma)
    kernel = gaussian_kernel(sigma, radius)  # [B, 2 * radius + 1]
    x = sharp.astype(jnp.float32)
    for axis in (2, 1):
        size = x.shape[axis]
        border = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(x, border, mode="reflect")
        x = jnp.zeros_like(x)
        for i in range(2 * radius + 1):
            shifted = jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
            x += kernel[:, i, None, None, None] * shifted
    return jnp.floor(x / _KERNEL_ONE**2 + 0.5).astype(jnp.uint8)


def make_pair(batch: Mapping[str, Any], max_sigma: float) -> tuple[jax.Array, jax.Array]:
    """Returns the blurred and the sharp images of a batch, float32 in [0, 1].

    Values that are equal as bytes are equal in the result, and stay so in what is computed of it.

    Args:
      batch: `sharp` uint8 `[B, H, W, 3]`, and `sigma` float32 `[B]` in [0, max_sigma] or, already
        made, `blurred` uint8 `[B, H, W, 3 or 9]`; with it `brightness` float32 `[B]`, if any, to be
        added to the values of both.
      max_sigma: see `gaussian_blur`.
    """
    if "blurred" in batch:
        blurred = batch["blurred"]
    else:
        blurred = gaussian_blur(batch["sharp"], batch["sigma"], max_sigma)
    pair = (images.astype(jnp.float32) / 255 for images in (blurred, batch["sharp"]))
    if "brightness" in batch:
        change = batch["brightness"][:, None, None, None]
        pair = (images + change for images in pair)
    # Without the clip the compiler joins one division with a later difference, and rounds it as it
    # does not the other: where the blur changed nothing, L1 would take its gradient from that.
    blurred, sharp = (jnp.clip(images, 0, 1) for images in pair)
    return blurred, sharp


@dataclasses.dataclass(frozen=True)
class GaussianBlur:
    """Chooses the blur of a patch, which the training step makes.

    Attributes:
      sigmas: `[N]`, pixels, of each image; None draws a fresh one every time.
      bounds: of a fresh sigma, pixels.
    """

    sigmas: np.ndarray | None
    bounds: tuple[float, float]
    margin: ClassVar[int] = 0

    def __call__(self, patch: np.ndarray, index: int, rng: np.random.Generator) -> Sample:
        """Returns `sharp`, the patch uint8 `[P, P, 3]`, and its `sigma`, a float32 scalar."""
        sigma = rng.uniform(*self.bounds) if self.sigmas is None else self.sigmas[index]
        return {"sharp": np.ascontiguousarray(patch), "sigma": np.asarray(sigma, np.float32)}


def stratified_sigmas(
    num_images: int, repeats: int, bounds: tuple[float, float], seed: int
) -> np.ndarray:
    """Draws the blur of every image of an evaluation, or of training with fixed blur.

    The r-th of R repeats draws from the r-th of R equal parts of the range between `bounds`, which
    takes most of the chance out of an average over few images; R = 1 is the published protocol.
    Image i's value depends on the seed, i and r alone.

    Returns:
      float32 `[repeats, num_images]`, pixels.
    """
    draws = [np.random.default_rng([seed, r]).uniform(size=num_images) for r in range(repeats)]
    strata = (np.arange(repeats)[:, None] + np.stack(draws)) / repeats
    low, high = bounds
    return (low + strata * (high - low)).astype(np.float32)
