"""Checkpoints of a training run: the state after a step, which also says where the data goes on.

They hold numpy arrays, which the run's process 0 alone writes and reads: a checkpoint knows nothing
of the devices it was made on, and no process waits for another's disk. `read_state` gives a run its
whole state back, `read_variables` the trained parameters to whoever wants to restore images.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import flax.struct
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from jaxdeblur.errors import InputError, Preempted, TrainingError
from jaxdeblur.workdir.folders import check_names, steps

_log = logging.getLogger(__name__)

State = TypeVar("State", bound=flax.struct.PyTreeNode)

# What Orbax and TensorStore raise for files that are missing, cut off or cannot be written.
_STORAGE_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AssertionError)


# What a checkpoint may grow to when it is read, in sizes of its own, and in bytes.
_MOST_GROWTH = 100
_LEAST_ROOM = 2**26


class Checkpoints:
    """Writes the checkpoints of one workdir, in `checkpoints/STEP`; a context manager.

    Saving runs in the background. The newest two are kept, and the best one. A checkpoint that is
    being written when the process dies has no final name and does not count.

    Args:
      workdir: folder of the run.
    """

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._psnr: Mapping[int, float] = {}
        self._saving: int | None = None
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.StandardCheckpointHandler(multiprocessing_options=_alone()),
            multiprocessing_options=_alone(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except TrainingError:
            if kind in (None, Preempted):  # else what went wrong before says more
                raise
        finally:
            self._checkpointer.close()

    def save(self, state: flax.struct.PyTreeNode, step: int, psnr: Mapping[int, float]) -> None:
        """Saves the state after `step`.

        Args:
          state: `training.TrainState` of numpy arrays, which no one changes any more.
          step: number of steps made.
          psnr: what the validations so far have measured, by step; of the checkpoints that there
            are, the one with the highest is kept.

        Raises:
          TrainingError: this or the last checkpoint cannot be written; those before are whole.
        """
        self.wait()
        self._saving, self._psnr = step, psnr
        try:
            self._check_room(state)
            contents = {"state": state, "checksum": _checksums(state)}
            self._checkpointer.save(
                _path(self._workdir, step), args=ocp.args.StandardSave(contents), force=True
            )
        except _STORAGE_ERRORS as error:
            raise self._unsaved(error) from error

    def wait(self) -> None:
        """Returns when everything saved is on disk, and what is no longer needed is not.

        Raises:
          TrainingError: it cannot be written.
        """
        if self._saving is None:
            return
        try:
            self._checkpointer.wait_until_finished()
            self._remove_old()
        except _STORAGE_ERRORS as error:
            raise self._unsaved(error) from error
        self._saving = None

    def _remove_old(self) -> None:
        found = steps(self._workdir)
        for step in set(found) - {*found[-2:], _best_of(found, self._psnr)}:
            path = _path(self._workdir, step)
            path.rename(path.with_name(f"deleted-{step}-{time.time_ns()}"))  # at once
        for gone in (self._workdir / "checkpoints").glob("deleted-*"):  # a killed run's as well
            shutil.rmtree(gone, ignore_errors=True)

    def _check_room(self, state: flax.struct.PyTreeNode) -> None:
        """Fails before Orbax does, which would tell of a full disk in hundreds of lines."""
        free = shutil.disk_usage(self._workdir).free
        size = sum(x.nbytes for x in jax.tree.leaves(state))
        if free < size:
            raise OSError(f"no space left: it takes {size:,} bytes, {free:,} are free")

    def last(self) -> str:
        """The newest checkpoint on disk, in words."""
        found = steps(self._workdir)
        return f"step {found[-1]}" if found else "there is none yet"

    def _unsaved(self, error: Exception) -> TrainingError:
        step, self._saving = self._saving, None
        return TrainingError(
            f"the checkpoint of step {step} could not be saved ({_first_line(error)}); last good "
            f"checkpoint: {self.last()}. Make room, and run the same command again"
        )


def _path(workdir: Path, step: int) -> Path:
    return (workdir / "checkpoints" / str(step)).absolute()


def _best_of(steps: Sequence[int], psnr: Mapping[int, float]) -> int:
    """The step with the highest PSNR; the last one if none has any."""
    return max(steps, key=lambda step: (psnr.get(step, -math.inf), step))


def best_step(workdir: Path, psnr: Mapping[int, float]) -> int:
    """The step of the checkpoint with the highest validation PSNR; the latest if none has one.

    Args:
      workdir: folder of the run.
      psnr: what its validations have measured, by step.

    Raises:
      InputError: the workdir has no complete checkpoint.
    """
    found = steps(workdir)
    if not found:
        check_names(workdir)
        raise InputError(f"workdir = {str(workdir)!r} has no complete checkpoint; train it first")
    return _best_of(found, psnr)


def read_newest(workdir: Path, state: State) -> State | None:
    """Reads the newest checkpoint that is whole; sets those aside, by renaming, that are not.

    Args:
      workdir: folder of the run.
      state: shapes and types, as `jax.eval_shape` gives them of what makes a first state.

    Returns:
      The state as numpy arrays, None where there is no checkpoint at all.

    Raises:
      InputError: none of several can be read, or none has a step's name; all stay as they are.
    """
    damaged: list[tuple[int, InputError]] = []
    for step in reversed(steps(workdir)):
        try:
            found = read_state(workdir, step, state)
        except InputError as error:
            damaged.append((step, error))
            continue
        for step, error in damaged:
            path = _path(workdir, step)
            aside = path.with_name(f"damaged-{step}-{time.time_ns()}")
            path.rename(aside)
            _log.warning("%s; it is now %s, and the run goes on from the one before", error, aside)
        return found
    if damaged:
        raise damaged[0][1]
    check_names(workdir)
    return None


def read_state(workdir: Path, step: int, state: State) -> State:
    """Reads one checkpoint's state.

    Args:
      workdir: folder of the run.
      step: a step that has a checkpoint.
      state: shapes and types, as `jax.eval_shape` gives them of what makes a first state.

    Returns:
      The state as numpy arrays.

    Raises:
      InputError: no such checkpoint, it is damaged, or it is of another network.
    """
    expected = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), state)
    checksums = {name: np.zeros((), np.uint32) for name in _checksums(expected)}
    with _told(workdir, step, "damaged or of another network") as folder:
        found = _restore(folder, {"state": expected, "checksum": checksums})
        jax.tree.map(_check_shape, found["state"], expected)  # Orbax takes any shape
        _check_sums(_checksums(found["state"]), found["checksum"])
    return found["state"]


def read_variables(workdir: Path, step: int) -> dict[str, Any]:
    """Reads the trained parameters of one checkpoint, whatever the network.

    Args:
      workdir: folder of the run.
      step: a step that has a checkpoint.

    Returns:
      What `module.apply` takes, numpy arrays: the averaged parameters where there are some.

    Raises:
      InputError: no such checkpoint, or it is damaged.
    """
    with _told(workdir, step, "damaged") as folder:
        found = _restore(folder, None)
        state = found["state"]
        name = "params" if state["ema_params"] is None else "ema_params"
        parts = {"params": state[name], "model_state": state["model_state"]}
        stored = {
            "params": found["checksum"][name],
            "model_state": found["checksum"]["model_state"],
        }
        _check_sums({part: _checksum(arrays) for part, arrays in parts.items()}, stored)
    return {"params": parts["params"], **parts["model_state"]}


@contextlib.contextmanager
def _told(workdir: Path, step: int, what: str) -> Iterator[Path]:
    """Gives a checkpoint's folder, and tells of one that cannot be read."""
    folder = _path(workdir, step)
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no complete checkpoint")
    _hide_abandoned_reads()
    try:
        yield folder
    except Exception as error:  # a damaged checkpoint raises whatever its readers do
        raise InputError(f"{str(folder)!r} is {what} ({_first_line(error)})") from error


def _restore(folder: Path, target: Any) -> Any:
    """Reads a checkpoint as the tree of `target`, or as nested dictionaries of numpy arrays."""
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=_alone())
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
        # Of the handler: the checkpointer would log what it fails to read.
        _check_growth(folder, handler.metadata(epath.Path(folder)))
        return checkpointer.restore(folder, args=ocp.args.StandardRestore(target))


def _check_growth(folder: Path, described: Any) -> None:
    """Refuses arrays that a checkpoint tells of and cannot hold, before memory is taken for them.

    TensorStore would end the process. Moments that are still zero take nearly no room.
    """
    arrays = [x for x in jax.tree.leaves(described) if getattr(x, "shape", None) is not None]
    size = sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in arrays)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > _LEAST_ROOM + _MOST_GROWTH * stored:
        raise ValueError(f"it tells of {size:,} bytes, and has {stored:,}")


def _checksums(state: Any) -> dict[str, np.ndarray]:
    """A checksum of each field of a state."""
    names = [field.name for field in dataclasses.fields(state)]
    return {name: _checksum(getattr(state, name)) for name in names}


def _checksum(tree: Any) -> np.ndarray:
    """Orbax notices files that are missing or cut off, but not a byte that has changed."""
    value = 0
    for x in jax.tree.leaves(tree):
        value = zlib.crc32(np.asarray(x).tobytes(), value)
    return np.array(value, np.uint32)


def _check_sums(found: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray]) -> None:
    if any(found[name] != stored[name] for name in found):
        raise ValueError("what was read is not what was written")


def _check_shape(found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape:
        raise ValueError(f"an array of {found.shape} instead of {expected.shape}")


def _alone() -> ocp.options.MultiprocessingOptions:
    """Keeps Orbax from waiting for other processes."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )


@functools.cache
def _hide_abandoned_reads() -> None:
    """Drops the tracebacks of the other reads, which Orbax abandons once one has failed.

    For good, as they may come at any time after.
    """
    logging.getLogger("asyncio").addFilter(lambda record: "never retrieved" not in record.msg)
    hook = sys.unraisablehook

    def filtered(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = filtered


def _first_line(error: Exception) -> str:
    if "ENOSPC" in str(error):
        return "no space left"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
