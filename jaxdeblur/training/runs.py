"""A run and its workdir: what it finds there when it begins, and what it leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ml_collections import ConfigDict

from jaxdeblur.errors import InputError, TrainingError
from jaxdeblur.runtime import distributed, remote
from jaxdeblur.runtime.progress import ProgressLine
from jaxdeblur.training import reporting
from jaxdeblur.workdir import checkpoints, log, settings

if TYPE_CHECKING:
    from jaxdeblur.evaluation.results import Result
    from jaxdeblur.training.state import TrainState


class Run:
    """Log, checkpoints and progress of a run; a context manager.

    Every process has one, but only that of process 0 reads, writes and talks: elsewhere nothing
    here does anything.

    Args:
      workdir: a folder, or the URL of one in object storage; made where missing.
      config: see `configs/default.py`.
      state: shapes and types of the run's state.

    Attributes:
      saved: the state to go on from, numpy arrays; None for a new run, and elsewhere.

    Raises:
      InputError: a workdir that cannot be read, or is of another configuration.
    """

    def __init__(self, workdir: str | Path, config: ConfigDict, state: TrainState):
        self.saved: TrainState | None = None
        self._name = str(workdir)
        self._config = config
        self._main = distributed.is_main()
        self._mirror: remote.Mirror | None = None
        self._open = contextlib.ExitStack()
        if not self._main:
            return
        self._folder = Path(workdir).expanduser()
        if remote.is_remote(workdir):
            self._mirror = remote.Mirror(self._name)
            self._folder = self._mirror.folder
        try:
            if self._mirror is not None:
                self._mirror.pull()
            settings.check(self._folder, config.to_dict())
            self.saved = checkpoints.read_newest(self._folder, state)
        except InputError:
            self._close_mirror()
            raise
        self._first = 0 if self.saved is None else int(self.saved.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._open.__exit__(*exception)  # pyright: ignore[reportArgumentType]
            if self._mirror is not None:
                self._mirror.push()
                self._mirror.wait()
        finally:
            self._close_mirror()

    def _close_mirror(self) -> None:
        if self._mirror is not None:
            self._mirror.close()

    def is_evaluated(self, step: int) -> bool:
        """Whether the log has an evaluation after a step."""
        return self._main and step in log.validation_psnr(self._folder)

    def begin(self, num_steps: int) -> None:
        """Claims the workdir, opens the log and shows progress.

        Not for a finished run, which is left as it is.

        Raises:
          InputError: the workdir cannot be written.
        """
        if not self._main:
            return
        settings.claim(self._folder, self._config.to_dict())
        self._checkpoints = self._open.enter_context(checkpoints.Checkpoints(self._folder))
        self._log = self._open.enter_context(reporting.RunLog(self._folder, self._first))
        progress = ProgressLine("training", num_steps, self._first)
        self._progress = self._open.enter_context(progress)
        if self._mirror is not None:
            self._open.callback(self._mirror.wait)  # before the checkpoints close, which it uses
        if self._first:
            self._progress.print(f"going on after step {self._first} of {self._name}")

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
        return f"{self._name}/{path.relative_to(self._folder)}"

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Tells of a full disk."""
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{self._name}: cannot be written ({error}); last good checkpoint: "
                f"{self.last_checkpoint()}. Make room, and run the same command again"
            ) from error


def _training_line(values: dict[str, float], loss: str) -> str:
    return (
        f"{loss} {values['loss']:.4f}  PSNR {values['psnr']:.2f} dB "
        f"(blurred {values['blurred_psnr']:.2f})  {values['images_per_second']:.0f} images/s"
    )
