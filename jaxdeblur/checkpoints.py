"""Checkpoints of a training run: the state after a step, which also says where the data goes on.

They hold numpy arrays, which the run's process 0 alone writes and reads: a checkpoint knows nothing
of the devices it was made on, and no process waits for another's disk.
"""

from __future__ import annotations

import functools
import logging
import math
import shutil
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxdeblur.errors import InputError, Preempted, TrainingError

if TYPE_CHECKING:
    from jaxdeblur.state import TrainState

_log = logging.getLogger(__name__)

# What Orbax and TensorStore raise for files that are missing, cut off or cannot be written.
_STORAGE_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AssertionError)


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

    def save(self, state: TrainState, step: int, psnr: Mapping[int, float]) -> None:
        """Saves the state after `step`.

        Args:
          state: numpy arrays, which no one changes any more.
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
            contents = {"state": state, "checksum": _checksum(state)}
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

    def _check_room(self, state: TrainState) -> None:
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


def steps(workdir: Path) -> list[int]:
    """The steps of a workdir's checkpoints, in order."""
    # What is being written, and what was set aside, has a longer name.
    names = [path.name for path in (workdir / "checkpoints").glob("*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


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
        raise InputError(f"workdir = {str(workdir)!r} has no complete checkpoint; train it first")
    return _best_of(found, psnr)


def read_newest(workdir: Path, state: TrainState) -> TrainState | None:
    """Reads the newest checkpoint that is whole; sets those aside, by renaming, that are not.

    Args:
      workdir: folder of the run.
      state: shapes and types, see `state.abstract_state`.

    Returns:
      The state as numpy arrays, None where there is no checkpoint at all.

    Raises:
      InputError: none of several can be read; all stay as they are.
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
    return None


def read_state(workdir: Path, step: int, state: TrainState) -> TrainState:
    """Reads one checkpoint's state.

    Args:
      workdir: folder of the run.
      step: a step that has a checkpoint.
      state: shapes and types, see `state.abstract_state`.

    Returns:
      The state as numpy arrays.

    Raises:
      InputError: no such checkpoint, it is damaged, or it is of another network.
    """
    folder = _path(workdir, step)
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no complete checkpoint")
    expected = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), state)
    target = {"state": expected, "checksum": np.zeros((), np.uint32)}
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=_alone())
    checkpointer = ocp.Checkpointer(handler, multiprocessing_options=_alone())
    _hide_abandoned_reads()
    try:
        with checkpointer:
            found = checkpointer.restore(folder, args=ocp.args.StandardRestore(target))
        jax.tree.map(_check_shape, found["state"], expected)  # Orbax takes any shape
        if _checksum(found["state"]) != found["checksum"]:
            raise ValueError("what was read is not what was written")
    except _STORAGE_ERRORS as error:
        raise InputError(
            f"{str(folder)!r} is damaged or of another network ({_first_line(error)})"
        ) from error
    return found["state"]


def _checksum(state: TrainState) -> np.ndarray:
    """Orbax notices files that are missing or cut off, but not a byte that has changed."""
    value = 0
    for x in jax.tree.leaves(state):
        value = zlib.crc32(np.asarray(x).tobytes(), value)
    return np.array(value, np.uint32)


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
