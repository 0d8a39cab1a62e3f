"""The state of a training: what it holds, and how a configuration makes a first one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxdeblur.models import create_model
from jaxdeblur.training.optimizer import make_optimizer


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes.

    Attributes:
      step: steps made so far.
      params: parameters of the network, float32.
      ema_params: their moving average, or None.
      model_state: other collections of the network (`batch_stats`), usually empty.
      opt_state: state of the optimizer.
    """

    step: jax.Array
    params: Any
    ema_params: Any
    model_state: Any
    opt_state: optax.OptState

    def variables(self) -> dict[str, Any]:
        """What to restore images with: the averaged parameters where there are some."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, **self.model_state}


def create_state(
    key: jax.Array,
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    patch_size: int,
    channels: int,
    ema: bool,
) -> TrainState:
    """Initialises parameters, their average and the optimizer."""
    image = jax.ShapeDtypeStruct((1, patch_size, patch_size, channels), jnp.float32)
    variables = module.lazy_init(key, image)  # computes no image
    params = variables.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        model_state=variables,
        opt_state=optimizer.init(params),
    )


class Parts(NamedTuple):
    """What a configuration trains with.

    Attributes:
      module: the network.
      optimizer: of its parameters.
      init: makes a first state of a key.
    """

    module: nn.Module
    optimizer: optax.GradientTransformation
    init: Callable[[jax.Array], TrainState]


def make_parts(config: ConfigDict, num_steps: int, channels: int) -> Parts:
    """Builds the network and the optimizer.

    Args:
      config: see `configs/default.py`.
      num_steps: of the training.
      channels: of the network's input, 3 or 9.
    """
    module = create_model(config.model, **config.model_kwargs, dtype=jnp.dtype(config.dtype))
    optimizer = make_optimizer(config, num_steps)
    init = functools.partial(
        create_state,
        module=module,
        optimizer=optimizer,
        patch_size=config.patch_size,
        channels=channels,
        ema=config.ema_decay > 0,
    )
    return Parts(module, optimizer, init)
