"""Checkpoints of a training run: the state, the position in the data and the best so far."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grain
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxdeblur.errors import InputError

if TYPE_CHECKING:
    from jaxdeblur.training import TrainState


class Checkpoints:
    """The checkpoints of one workdir, in `checkpoints/STEP`; a context manager.

    Saving runs in the background. The newest two are kept, and the one with the best validation
    PSNR. A checkpoint that is being written when the process dies has no final name and does not
    count.
    """

    def __init__(self, workdir: Path):
        policy = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(2),
                preservation_policy.BestN(get_metric_fn=_psnr, n=1),
            ]
        )
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(),
            # Without `best_fn` Orbax would not write the metrics, and forget them with the process.
            options=ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=_psnr),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(
        self,
        state: TrainState,
        batches: grain.DatasetIterator,
        step: int,
        validation: dict[str, float] | None = None,
    ) -> None:
        """Saves the state after `step`, with the validation's `psnr` if it was just measured."""
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=grain.checkpoint.CheckpointSave(batches),
        )
        self._manager.save(step, args=arguments, metrics=validation or {}, force=True)

    def restore(self, state: TrainState, batches: grain.DatasetIterator) -> TrainState:
        """Returns the latest saved state, or `state` if there is none; moves `batches` along."""
        step = self._manager.latest_step()
        if step is None:
            return state
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(_abstract, state)),
            data=grain.checkpoint.CheckpointRestore(batches),
        )
        return self._manager.restore(step, args=arguments)["state"]

    def latest_step(self) -> int | None:
        """The step of the latest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self._manager.wait_until_finished()


def _psnr(metrics: dict[str, float]) -> float:
    """The PSNR of a checkpoint's validation, below any other where there was none."""
    return metrics.get("psnr", -math.inf)


def _abstract(x: jax.Array) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def any_checkpoint(workdir: Path) -> bool:
    """Whether a run goes on in this workdir, instead of beginning."""
    # What is being written has a longer name.
    return any(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*"))


def best_step(workdir: Path) -> int:
    """The step of the checkpoint with the highest validation PSNR; the latest if none has one.

    Raises:
      InputError: the workdir has no complete checkpoint.
    """
    folder = (workdir / "checkpoints").absolute()
    if not folder.is_dir():
        raise InputError(f"workdir = {str(workdir)!r} has no checkpoints; train it first")
    options = ocp.CheckpointManagerOptions(create=False, best_fn=_psnr)
    with ocp.CheckpointManager(folder, options=options) as manager:
        step = manager.best_step()
    if step is None:
        raise InputError(f"workdir = {str(workdir)!r} has no complete checkpoint; train it on")
    return step


def read_state(workdir: Path, step: int, state: TrainState) -> TrainState:
    """Reads one checkpoint's state.

    Args:
      workdir: folder of the run.
      step: a step that has a checkpoint.
      state: shapes and types, see `training.abstract_state`.

    Raises:
      InputError: no such checkpoint, it is damaged, or it is of another network.
    """
    folder = (workdir / "checkpoints" / str(step)).absolute()
    if not (folder / "state").is_dir():
        raise InputError(f"{str(folder)!r} is no complete checkpoint")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state
    )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder / "state", target)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{str(folder)!r} is damaged or of another network ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
