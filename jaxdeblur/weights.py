"""Trained networks: saved as one safetensors file with a card, loaded by name or path."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdeblur.errors import InputError
from jaxdeblur.models import create_model, describe_model


@dataclasses.dataclass(frozen=True)
class Deblurrer:
    """A network with its parameters: call it on images.

    Attributes:
      module: the Linen module.
      params: its parameters.
      card: what is known about it: `model`, `model_kwargs`, `channels` (3: images, 9: video), and
        where it comes from.
      model_state: other collections of the module (`batch_stats`), usually empty.
    """

    module: nn.Module
    params: Any
    card: dict[str, Any]
    model_state: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, blurred: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """Restores images.

        Args:
          blurred: `[H, W, C]` or `[B, H, W, C]` with the card's number of channels; uint8, or
            float in [0, 1]. H and W must be multiples of the network's size.

        Returns:
          The restored images with 3 channels, clipped, of the input's kind: uint8 (rounded) for
          uint8, float for float, NumPy for NumPy.

        Raises:
          InputError: a shape, type or size that the network does not take.
        """
        images = jnp.asarray(blurred)
        if images.ndim not in (3, 4) or images.shape[-1] != self.card["channels"]:
            raise InputError(
                f"blurred has shape {images.shape}; this network takes [H, W, C] or [B, H, W, C] "
                f"with C = {self.card['channels']}"
            )
        if not (images.dtype == jnp.uint8 or jnp.issubdtype(images.dtype, jnp.floating)):
            raise InputError(f"blurred has type {images.dtype}; give uint8, or float in [0, 1]")
        batch = images if images.ndim == 4 else images[None]
        restored = _restore(self.module, self.variables(), batch)
        restored = restored if images.ndim == 4 else restored[0]
        return restored if isinstance(blurred, jax.Array) else np.asarray(restored)

    def variables(self) -> dict[str, Any]:
        """What `module.apply` takes first."""
        return {"params": self.params, **self.model_state}


@functools.partial(jax.jit, static_argnums=0)
def _restore(module: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    integers = images.dtype == jnp.uint8
    blurred = images.astype(jnp.float32) / 255 if integers else images
    restored: Any = module.apply(variables, blurred)
    restored = jnp.clip(restored, 0, 1)
    return jnp.round(restored * 255).astype(jnp.uint8) if integers else restored


def save(path: str | os.PathLike[str], deblurrer: Deblurrer) -> None:
    """Writes a network as a safetensors file, with its card in the file's metadata.

    The file appears whole or not at all.

    Raises:
      InputError: the folder does not exist or cannot be written to.
    """
    from safetensors.numpy import save_file

    path = Path(path).expanduser()
    name, fields = describe_model(deblurrer.module)
    card = {**deblurrer.card, "model": name, "model_kwargs": fields}
    arrays = {
        key: np.ascontiguousarray(value)
        for key, value in flatten_dict(deblurrer.variables(), sep="/").items()
    }
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(arrays, partial, metadata={"card": json.dumps(card)})
        partial.rename(path)
    except Exception as error:  # safetensors raises its own error type for a failed write
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {str(path)!r} ({error})") from error


def load(source: str | os.PathLike[str]) -> Deblurrer:
    """Loads a trained network.

    Args:
      source: a safetensors file that `save` wrote, the workdir of a run (its checkpoint with the
        best validation PSNR), or one checkpoint (`WORKDIR/checkpoints/STEP`).

    Raises:
      InputError: no such thing, or it is damaged.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return _load_file(path)
    if (path / "config.json").is_file():
        return _load_checkpoint(path, None)
    if path.is_dir() and path.parent.name == "checkpoints" and path.name.isdigit():
        return _load_checkpoint(path.parent.parent, int(path.name))
    raise InputError(
        f"{str(source)!r} is no weights file, workdir or checkpoint (WORKDIR/checkpoints/STEP)"
    )


def _load_file(path: Path) -> Deblurrer:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            card = json.loads(file.metadata()["card"])
            name, fields, _ = card["model"], card["model_kwargs"], card["channels"]
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a whole safetensors file ({error})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(path)!r} has no card; write weights with jaxdeblur") from error
    module = create_model(name, **fields)
    check_shapes(module, unflatten_dict(arrays, sep="/"), card["channels"], str(path))
    variables = jax.tree.map(jnp.asarray, unflatten_dict(arrays, sep="/"))
    return Deblurrer(module, variables.pop("params"), card, variables)


def check_shapes(module: nn.Module, variables: Any, channels: int, source: str) -> None:
    """Raises InputError, naming `source`, unless `variables` are those of the module."""
    image = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    expected: dict[Any, Any] = flatten_dict(jax.eval_shape(module.init, jax.random.key(0), image))
    given: dict[Any, Any] = flatten_dict(variables)
    for path in sorted(expected.keys() | given.keys()):
        needed, found = (tree[path].shape if path in tree else None for tree in (expected, given))
        if needed != found:
            raise InputError(
                f"{source}: {'/'.join(path)} has shape {found}, but {type(module).__name__} with "
                f"{channels} channels needs {needed}; the two do not belong together"
            )


def _load_checkpoint(workdir: Path, step: int | None) -> Deblurrer:
    from jaxdeblur import checkpoints, training
    from jaxdeblur import config as configuration

    config = configuration.read_config(workdir)
    module = create_model(config.model, **config.model_kwargs)
    step = checkpoints.best_step(workdir) if step is None else step
    state = checkpoints.read_state(workdir, step, training.abstract_state(config))
    variables = state.variables()
    card = {
        "model": config.model,
        "model_kwargs": config.model_kwargs.to_dict(),
        "channels": 3,
        "trained_on": f"{config.dataset}, {int(state.step)} steps of batch {config.batch_size}",
        "seed": config.seed,
    }
    return Deblurrer(module, variables.pop("params"), card, variables)
