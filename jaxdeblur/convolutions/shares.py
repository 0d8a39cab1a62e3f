"""One image on several devices: a share of its columns each, and nothing computed twice.

A layer needs of the shares beside its own as many columns as its kernel reaches beyond; devices
exchange them before each layer. What an image has beyond its ends is zeros ('SAME' padding), which
is also what a device receives that has no neighbour there.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

_AXIS = "columns"
_NARROWEST = 32  # columns of a share: every kernel reaches into the next share alone


def fit(module: nn.Module, width: int, count: int) -> bool:
    """Whether images of so many columns can be divided among so many devices.

    Shares are as wide as each other and lie on the network's grid, and its layers keep the size.
    """
    network: Any = module
    share = width // count
    aligned = width % count == 0 and share % network.size_multiple == 0
    return network.keeps_size and aligned and share >= _NARROWEST


def sharding(devices: Sequence[Any]) -> jax.NamedSharding:
    """That of images `[B, H, W, C]`, an equal share of the columns on each device."""
    mesh = jax.sharding.Mesh(np.array(devices), (_AXIS,))
    return jax.NamedSharding(mesh, jax.P(None, None, _AXIS))


def divided_apply(module: nn.Module, devices: Sequence[Any]) -> Callable[..., Any]:
    """Returns `module.apply` of variables and images, which divides images among devices.

    The result is that of `module.apply` to rounding.

    Args:
      module: a network.
      devices: JAX's. What is returned raises ValueError for images whose width does not `fit` them.
    """
    divided = sharding(devices)
    of_share = jax.shard_map(
        module.apply,
        mesh=divided.mesh,
        in_specs=(jax.P(), divided.spec),
        out_specs=divided.spec,
        check_vma=False,
    )

    def apply(variables, images):
        width = images.shape[2]
        if not fit(module, width, len(devices)):
            name = type(module).__name__
            raise ValueError(f"{width} columns do not divide among {len(devices)} for {name}")
        return of_share(variables, images)

    return apply


def is_share() -> bool:
    """Whether what is being traced sees a share of the columns, inside `divided_apply`."""
    return _AXIS in jax.sharding.get_abstract_mesh().manual_axes


def widened(x: jax.Array, columns: tuple[int, int]) -> jax.Array:
    """Adds to a share columns of its neighbours, and zeros at the ends of the image.

    Args:
      x: `[B, H, W, C]`.
      columns: pixels to add on the left and on the right, `W` at most.

    Returns:
      `[B, H, W + sum(columns), C]`.
    """
    width = x.shape[2]
    before, after = columns
    if max(columns) > width:
        raise ValueError(f"a share of {width} columns is too narrow for {columns} more")
    # A sum of three, each with zeros where the others lie, which the compiler makes part of the
    # pass that adds the zeros above and below, with the phases' dimension as the layers on a CPU
    # have it. Joined, or written into each other, they would be copied once more.
    last = lax.axis_size(_AXIS) - 1
    parts = [_pad(x, columns)]
    if before:
        to_right = [(i, i + 1) for i in range(last)]
        received = lax.ppermute(x[:, :, width - before :], _AXIS, to_right)
        parts.append(_pad(received, (0, width + after)))
    if after:
        to_left = [(i + 1, i) for i in range(last)]
        received = lax.ppermute(x[:, :, :after], _AXIS, to_left)
        parts.append(_pad(received, (before + width, 0)))
    return functools.reduce(operator.add, parts)[:, :, 0]


def _pad(x: jax.Array, columns: tuple[int, int]) -> jax.Array:
    return jnp.pad(x[:, :, None], ((0, 0), (0, 0), (0, 0), columns, (0, 0)))
