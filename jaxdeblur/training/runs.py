"""A run and its workdir: what it finds there when it begins, and what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ml_collections import ConfigDict

from jaxdeblur.errors import InputError, TrainingError
from jaxdeblur.runtime import distributed, locks, paths
from jaxdeblur.runtime.progress import ProgressLine
from jaxdeblur.training import reporting
from jaxdeblur.workdir import checkpoints, log, remote, settings

if TYPE_CHECKING:
    from jaxdeblur.evaluation.results import Result
    from jaxdeblur.training.state import TrainState


class Run:
    """Log, checkpoints and progress of a run; a context manager.

    Every process has one, but only that of process 0 reads, writes and talks: elsewhere nothing
    here does anything. As long as it is open, no other process may train in the workdir.

    Args:
      workdir: a folder, or the URL of one in object storage; made where missing.
      config: see `configs/default.py`.
      num_steps: that the configuration asks for, of the data as they are.
      data: what tells the data from others, see `source.fingerprint`, by split.

    Attributes:
      name: the workdir, as the user knows it.
      num_steps: of the run: those that it began with, if it was begun before.

    Raises:
      InputError: a workdir that cannot be read, is of another configuration, or in use.
    """

    def __init__(
        self, workdir: str | Path, config: ConfigDict, num_steps: int, data: Mapping[str, Any]
    ):
        self.num_steps = num_steps
        self.name = str(workdir)
        self._config, self._data = config, json.loads(json.dumps(data))
        self._main = distributed.is_main()
        self._mirror: remote.Mirror | None = None
        self._lock: int | None = None
        self._first = 0
        self._open = contextlib.ExitStack()
        if not self._main:
            return
        if remote.is_remote(workdir):
            self._mirror = remote.Mirror(self.name)
            self._folder = self._mirror.folder
        else:
            self._folder = paths.local(workdir, "workdir")
            paths.check_text(self._folder, "workdir")
        try:
            if self._mirror is not None:
                self._mirror.pull()
            self._take()
            settings.check(self._folder, config.to_dict())
            begun = settings.begun_with(self._folder)
        except InputError:
            self._release()
            raise
        self._begun_data = None if begun is None else begun["data"]
        if begun is not None:
            self.num_steps = begun["num_steps"]

    def _take(self) -> None:
        """Keeps other processes from training in a workdir that there is."""
        if self._lock is not None:
            return
        try:
            self._lock = locks.held(self._folder / settings.FILE)
        except BlockingIOError:
            raise InputError(
                f"workdir = {self.name!r} is in use by another training; wait for its end, or use "
                "another --workdir"
            ) from None

    def _release(self) -> None:
        if self._mirror is not None:
            self._mirror.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self, state: TrainState) -> TrainState | None:
        """Reads the state to go on from, as numpy arrays; None for a new run, and elsewhere.

        Args:
          state: shapes and types of the run's state.

        Raises:
          InputError: there are checkpoints, and none can be read; or the log cannot.
        """
        if not self._main:
            return None
        log.read_metrics(self._folder)
        saved = checkpoints.read_newest(self._folder, state)
        self._first = 0 if saved is None else int(saved.step)
        return saved

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._open.__exit__(*exception)  # pyright: ignore[reportArgumentType]
            if self._mirror is not None:
                self._mirror.push()
                self._mirror.wait()
        finally:
            self._release()

    def is_evaluated(self, step: int) -> bool:
        """Whether the log has an evaluation after a step."""
        return self._main and step in log.validation_psnr(self._folder)

    def begin(self) -> None:
        """Claims the workdir, opens the log and shows progress.

        Not for a finished run, which is left as it is.

        Raises:
          InputError: the workdir cannot be written, or another training has begun in it meanwhile.
        """
        if not self._main:
            return
        self._claim()
        try:
            self._log = self._open.enter_context(reporting.RunLog(self._folder, self._first))
        except (OSError, InputError) as error:
            raise InputError(f"workdir = {self.name!r} cannot be written ({error})") from error
        self._checkpoints = self._open.enter_context(checkpoints.Checkpoints(self._folder))
        progress = ProgressLine("training", self.num_steps, self._first)
        self._progress = self._open.enter_context(progress)
        if self._mirror is not None:
            self._open.callback(self._mirror.wait)  # before the checkpoints close, which it uses
        if self._first:
            self._progress.print(f"going on after step {self._first} of {self.name}")
        if (remark := self._changed_data()) is not None:
            self._progress.print(remark)

    def _claim(self) -> None:
        is_new = self._lock is None
        settings.claim(self._folder, self._config.to_dict())
        self._take()
        if is_new:  # unless another process was quicker
            settings.check(self._folder, self._config.to_dict())
            found = checkpoints.steps(self._folder)
            if found and found[-1] > self._first:
                raise InputError(
                    f"workdir = {self.name!r}: another training has begun there since this one "
                    "started; run the same command again"
                )
        settings.note_data(self._folder, self.num_steps, self._data)

    def _changed_data(self) -> str | None:
        """Says of a run that goes on that its data are not those it began with."""
        before = self._begun_data
        if not self._first or before is None or before == self._data:
            return None
        changes = []
        for split, now in self._data.items():
            old = before.get(split)
            if old == now:
                continue
            images = old.get("images") if isinstance(old, dict) else "other"
            other = "others" if images == now["images"] else f"{now['images']} now, {images} then"
            changes.append(f"{split}: {other}")
        return f"warning: the data have changed since the run began ({'; '.join(changes)})"

    def step(self, step: int) -> None:
        """Counts a step."""
        if self._main:
            self._progress.update(step)

    def last_checkpoint(self) -> str:
        """The newest checkpoint that is on disk, in words."""
        return self._checkpoints.last() if self._main else ""

    def trained(self, step: int, values: dict[str, float]) -> None:
        """Logs means over the steps since the last call."""
        if self._main:
            with self._written():
                self._log.scalars(step, values)
            self._progress.update(step, _training_line(values, self._config.loss))

    def save(self, state: TrainState, step: int) -> None:
        """Saves the state after a step, in the background; see `Checkpoints.save`.

        Every process must call it.
        """
        arrays = distributed.to_main(state)
        if not self._main:
            return
        if self._mirror is not None:
            self._mirror.wait()
        self._checkpoints.save(arrays, step, log.validation_psnr(self._folder))
        if self._mirror is not None:
            self._mirror.push(when=self._checkpoints.wait)

    def evaluated(self, step: int, result: Result) -> None:
        """Logs an evaluation after a step, with its pictures."""
        if not self._main:
            return
        values = result.means()
        with self._written():
            picture = self._log.picture(step, result.contact_sheet())
            self._log.scalars(step, {f"eval/{name}": x for name, x in values.items()})
        self._progress.print(
            f"step {step}: held-out images {values['psnr']:.2f} dB, blurred "
            f"{values['blurred_psnr']:.2f} dB; picture: {self._shown(picture)}"
        )

    def finish(self) -> None:
        """Plots the curves of a run that has made all its steps."""
        if self._main:
            with self._written():
                curves = self._log.curves()
            self._progress.print(f"curves: {self._shown(curves)}")

    def _shown(self, path: Path) -> str:
        """A file's name as the user knows it."""
        return f"{self.name}/{path.relative_to(self._folder)}"

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Tells of a full disk."""
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{self.name}: cannot be written ({error}); last good checkpoint: "
                f"{self.last_checkpoint()}. Make room, and run the same command again"
            ) from error


def _training_line(values: dict[str, float], loss: str) -> str:
    return (
        f"{loss} {values['loss']:.4f}  PSNR {values['psnr']:.2f} dB "
        f"(blurred {values['blurred_psnr']:.2f})  {values['images_per_second']:.0f} images/s"
    )
