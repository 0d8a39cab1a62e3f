"""Trained networks: saved as one safetensors file with a card, loaded by name or path."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdeblur import cards, catalogue
from jaxdeblur.errors import InputError, nearest
from jaxdeblur.models import create_model, describe_model
from jaxdeblur.models.layers import Array
from jaxdeblur.models.variables import channels_of, check_shapes
from jaxdeblur.restoring import restore, tiling
from jaxdeblur.runtime import atomic, paths
from jaxdeblur.workdir import log, remote, settings
from jaxdeblur.workdir.folders import step_of

_SHIPPED = Path(__file__).parent / "pretrained"


@dataclasses.dataclass(frozen=True)
class Deblurrer:
    """A network with its parameters: call it on pictures.

    Attributes:
      module: the Linen module.
      params: its parameters.
      card: what is known about it: `model`, `model_kwargs`, `channels` (3: images, 9: video), where
        it comes from, and of shipped weights the `limits` of a plausible result and, if any, the
        `scales` that they were measured with.
      model_state: other collections of the module (`batch_stats`), usually empty.
    """

    module: nn.Module
    params: Any
    card: dict[str, Any]
    model_state: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(
        self,
        blurred: Array,
        *,
        tile: tiling.Tile = "auto",
        self_ensemble: bool = False,
        strength: float = 1.0,
        scales: Sequence[int] | None = None,
    ) -> Array:
        """Restores pictures of any size.

        Not for use inside `jax.jit`; there, `module.apply(deblurrer.variables(), blurred)`.

        Args:
          blurred: `[H, W, C]` or `[B, H, W, C]`; uint8, uint16, or float in [0, 1]. C is the card's
            number of channels; a network of video mode given 3 takes the picture for a clip that
            stands still.
          tile: side of square tiles in pixels, "auto" for tiles that fit the memory, "off" for
            none. The result is the same to rounding.
          self_ensemble: average over the picture's 8 flips and turns; takes 8 times as long.
          strength: 0 gives the blurred picture back, 1 the restored one, in between a mixture.
          scales: further passes over the picture, shrunk so many times, for blur that is too long
            at its own size (`scales.restore_scales`); by default the card's, () for none.

        Returns:
          The restored pictures with 3 channels, clipped, of the input's type: rounded for
          integers, NumPy for NumPy. A part whose result is implausible (not finite, beyond the
          card's `limits`) is the input's, and a warning is logged that names it. What is flat
          stays flat (`flat.keep_flat`).

        Raises:
          InputError: a shape, type or option that does not fit.
        """
        chosen = self.card.get("scales", ()) if scales is None else scales
        chosen = tuple(chosen) if isinstance(chosen, Iterable) else chosen
        options = restore.Options(tile, self_ensemble, strength, chosen)
        pictures = np.asarray(blurred)
        channels = self.card["channels"]
        if pictures.ndim in (3, 4) and pictures.shape[-1] == 3 < channels:
            pictures = np.concatenate([pictures] * (channels // 3), axis=-1)
        if pictures.ndim not in (3, 4) or pictures.shape[-1] != channels:
            raise InputError(
                f"blurred has shape {np.shape(blurred)}; this network takes [H, W, C] or "
                f"[B, H, W, C] with C = {' or '.join(str(n) for n in sorted({3, channels}))}"
            )
        if not (
            pictures.dtype in (np.uint8, np.uint16) or jnp.issubdtype(pictures.dtype, jnp.floating)
        ):
            raise InputError(
                f"blurred has type {pictures.dtype}; give uint8, uint16, or float in [0, 1]"
            )
        limits = self.card.get("limits", {})
        restored = restore.restore(self.module, self.variables(), pictures, options, limits)
        if isinstance(blurred, jax.Array):
            return jnp.asarray(restored)
        return restored

    def frames(self, frames: Iterable[np.ndarray], **options: Any) -> Iterator[np.ndarray]:
        """Restores the frames of one clip, in order, holding three of them at a time.

        Args:
          frames: `[H, W, 3]` each, uint8, uint16, or float in [0, 1]. A network of video mode sees
            the frames before and after, at the clip's ends the end itself.
          **options: as of a call.
        """

        def restore_one(frame: np.ndarray) -> Any:
            # As a batch, whose tiles are those of its size: a clip has one, and so one program.
            return self(frame[None], **options)[0]

        return restore.restore_frames(frames, restore_one, self.card["channels"])

    def variables(self) -> dict[str, Any]:
        """What `module.apply` takes first."""
        return {"params": self.params, **self.model_state}


def save(path: str | os.PathLike[str], deblurrer: Deblurrer) -> None:
    """Writes a network as a safetensors file, with its card in the file's metadata.

    The file appears whole or not at all.

    Raises:
      InputError: the folder does not exist or cannot be written to.
    """
    from safetensors.numpy import save as to_bytes

    name, fields = describe_model(deblurrer.module)
    card = {**deblurrer.card, "model": name, "model_kwargs": fields}
    arrays = {
        key: np.ascontiguousarray(value)
        for key, value in flatten_dict(deblurrer.variables(), sep="/").items()
    }
    data = to_bytes(arrays, metadata={"card": json.dumps(card)})
    with atomic.replacing(paths.local(path, "path"), overwrite=True) as partial:
        partial.write_bytes(data)


def load(
    source: str | os.PathLike[str], *, dtype: Any = None, effort: int | None = None
) -> Deblurrer:
    """Loads a trained network.

    Args:
      source: the name of shipped weights (see `shipped`) or of fetched ones (`jaxdeblur fetch`); a
        safetensors file that `save` wrote; a file or folder of another program that `convert.read`
        knows, such as "NAFNet-GoPro-width64.pth"; the workdir of a run (its checkpoint with the
        best validation PSNR), or one checkpoint (`WORKDIR/checkpoints/STEP`); the last two may be
        URLs, `s3://` or `gs://`.
      dtype: type of the arithmetic, such as "bfloat16"; by default float32.
      effort: of a network in stages (MAXIM), how many to compute; by default all.

    Raises:
      InputError: no such thing, it is damaged, or an effort that the network has not.
    """
    deblurrer = _load(source)
    options: dict[str, Any] = {} if dtype is None else {"dtype": _floating(dtype)}
    if effort is not None:
        _check_effort(deblurrer.module, effort)
        options["effort"] = effort
    return dataclasses.replace(deblurrer, module=deblurrer.module.clone(**options))


def _floating(dtype: Any) -> jnp.dtype:
    try:
        if jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
            return jnp.dtype(dtype)
    except TypeError:
        pass
    raise InputError(f"dtype = {dtype!r} must be a floating type, such as 'bfloat16'")


def _check_effort(module: Any, effort: int) -> None:
    stages = getattr(module, "num_stages", None)
    if stages is None:
        raise InputError(
            f"effort = {effort} is for networks in stages (maxim); {type(module).__name__} has "
            "none; leave it out"
        )
    if type(effort) is not int or not 1 <= effort <= stages:
        raise InputError(f"effort = {effort} must be from 1 to {stages}, the network's stages")


def _load(source: str | os.PathLike[str]) -> Deblurrer:
    if remote.is_remote(source):
        with remote.copy(str(source)) as local:
            return _load(local)
    name, path = str(source), paths.local(source, "weights")
    if name in (ours := shipped()):
        return _load_shipped(name, ours[name])
    if name in (files := catalogue.fetched()):
        return _load_file(files[name])
    if path.is_file():
        return _load_file(path) if _is_saved(path) else _convert(path)
    if os.path.isfile(path / settings.FILE):  # false, no error, where it may not be looked for
        return _load_checkpoint(path, None)
    if path.is_dir() and path.parent.name == "checkpoints" and path.name.isdigit():
        return _load_checkpoint(path.parent.parent, _step(path))
    if path.is_dir():
        return _convert(path)
    if name in catalogue.ENTRIES:
        raise InputError(f"{name!r} is not here yet; get it with `jaxdeblur fetch {name}`")
    raise InputError(
        f"{name!r} is no weights file, workdir or checkpoint (WORKDIR/checkpoints/STEP), and no "
        f"name of shipped or fetched weights; {nearest(name, [*ours, *catalogue.ENTRIES])}"
    )


def _step(folder: Path) -> int:
    step = step_of(folder.name)
    if step is None:
        raise InputError(
            f"{str(folder)!r} has no name of a checkpoint, such as 99 or 1000; rename it to "
            "its step"
        )
    return step


def _is_saved(path: Path) -> bool:
    """Whether `save` wrote a file, or, where it is damaged, would have named it so."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return "card" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return path.suffix == ".safetensors"


def _convert(path: Path) -> Deblurrer:
    """Reads what another program wrote."""
    from jaxdeblur import convert  # which few need

    module, params, source = convert.read(path)
    card = {"channels": channels_of(module, {"params": params}), "source": source}
    return Deblurrer(module, params, card)


def shipped() -> dict[str, dict[str, Any]]:
    """Returns the cards of the weights that the package ships, by name.

    Besides what every card has (`Deblurrer.card`), they tell what the weights have seen, how they
    were trained and measured, their licence, and the file's `sha256`.
    """
    return {path.stem: json.loads(path.read_text()) for path in sorted(_SHIPPED.glob("*.json"))}


def _load_shipped(name: str, card: dict[str, Any]) -> Deblurrer:
    path = _SHIPPED / f"{name}.safetensors"
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"the weights {name!r} are missing ({error}); install again") from error
    if found != card["sha256"]:
        raise InputError(f"{str(path)!r} is damaged: its sha256 is {found}; install again")
    deblurrer = _load_file(path)
    return dataclasses.replace(deblurrer, card={**deblurrer.card, **card, "name": name})


def _load_file(path: Path) -> Deblurrer:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("card", "")
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    # Of types that NumPy has not, the library raises TypeError and others.
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{str(path)!r} is not a whole safetensors file ({error})") from error
    card = cards.read(text, str(path))
    cards.check_arrays(arrays, card, str(path))
    module = _network(card["model"], card["model_kwargs"], str(path))
    variables = unflatten_dict(arrays, sep="/")
    check_shapes(module, variables, card["channels"], str(path))
    variables = jax.device_put(variables)
    return Deblurrer(module, variables.pop("params"), card, variables)


def _network(name: str, fields: dict[str, Any], source: str) -> nn.Module:
    """The network that a file tells of; InputError, naming the file, where there is none."""
    try:
        module = create_model(name, **fields)
        if "dtype" in fields:
            _floating(fields["dtype"])
        if fields.get("effort") is not None:
            _check_effort(module, fields["effort"])
    except (InputError, TypeError) as error:  # a field of any name may be there
        raise InputError(f"{source!r}: {error}") from error
    return module


def _load_checkpoint(workdir: Path, step: int | None) -> Deblurrer:
    from jaxdeblur.workdir import checkpoints  # Orbax takes a second to import

    paths.check_text(workdir, "weights")
    config, file = settings.read(workdir), str(workdir / settings.FILE)
    try:
        name, fields = config["model"], config["model_kwargs"]
        if not (isinstance(name, str) and isinstance(fields, dict)):
            raise TypeError("model must be a name, model_kwargs an object of fields")
        module = _network(name, fields, file)
        card = {key: config[key] for key in ("model", "model_kwargs", "seed")}
        dataset, batch_size = config["dataset"], config["batch_size"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error!r})") from error
    if step is None:
        step = checkpoints.best_step(workdir, log.validation_psnr(workdir))
    variables = checkpoints.read_variables(workdir, step)
    count = len(jax.tree.leaves(variables))
    cards.check_counts(fields, count, f"workdir = {str(workdir)!r}", "config.json")
    channels = channels_of(module, variables)
    if channels is None:
        raise InputError(
            f"workdir = {str(workdir)!r}: the checkpoint of step {step} does not belong to "
            "the network that its config.json names"
        )
    card["channels"] = channels
    card["trained_on"] = f"{dataset}, {step} steps of batch {batch_size}"
    variables = jax.device_put(variables)
    return Deblurrer(module, variables.pop("params"), card, variables)
