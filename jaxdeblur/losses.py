"""Training losses: the mean over all pixels and channels of a batch, float32."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def l1(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Mean absolute difference."""
    return jnp.abs(restored - sharp).mean()


def mse(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Mean squared difference."""
    return jnp.square(restored - sharp).mean()


def charbonnier(restored: jax.Array, sharp: jax.Array) -> jax.Array:
    """Mean of `sqrt(difference**2 + 0.001**2)`, an L1 that is smooth at zero.

    References:
      Lai et al., "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution",
      CVPR 2017.
    """
    return jnp.sqrt(jnp.square(restored - sharp) + 1e-3**2).mean()


LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "l1": l1,
    "mse": mse,
    "charbonnier": charbonnier,
}
