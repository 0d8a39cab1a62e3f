"""The variables of a network: their shapes, and whether arrays of other origin are those."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxdeblur.errors import InputError
from jaxdeblur.models.layers import shapes_alone


def check_shapes(module: nn.Module, variables: Any, channels: int, source: str) -> None:
    """Raises InputError, naming `source`, unless `variables` are those of the module."""
    expected: dict[Any, Any] = flatten_dict(needed(module, channels))
    given: dict[Any, Any] = flatten_dict(variables)
    for path in sorted(expected.keys() | given.keys()):
        due, found = (tree[path].shape if path in tree else None for tree in (expected, given))
        if due != found:
            raise InputError(
                f"{source}: {'/'.join(path)} has shape {found}, but {type(module).__name__} with "
                f"{channels} channels needs {due}; the two do not belong together"
            )


def channels_of(module: nn.Module, variables: Any) -> int | None:
    """The channels of input for which these are a network's variables; None for no number.

    3 of image mode, 9 of video mode.
    """

    def shapes(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.shape, tree)

    given = shapes(variables)
    return next((n for n in (3, 9) if shapes(needed(module, n)) == given), None)


@functools.lru_cache(maxsize=8)  # it takes seconds of a large network
def needed(module: nn.Module, channels: int) -> Any:
    """The shapes and types of a network's variables, for 3 or 9 channels of input."""
    image = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    with shapes_alone():
        return jax.eval_shape(module.init, jax.random.key(0), image)
