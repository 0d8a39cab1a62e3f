"""What a run leaves in its workdir: `metrics.jsonl`, TensorBoard files, pictures."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from jaxdeblur.evaluation import pictures
from jaxdeblur.runtime import atomic
from jaxdeblur.training.tensorboard import EventFile
from jaxdeblur.workdir import log


class RunLog:
    """`metrics.jsonl`, TensorBoard files and pictures of a workdir; a context manager.

    Args:
      workdir: folder of the run.
      first_step: the step it starts after. Lines of later steps, which a killed run wrote after
        its last checkpoint, are dropped: those steps are made again.

    Raises:
      InputError, OSError: what is there cannot be read or written.
    """

    def __init__(self, workdir: Path, first_step: int):
        self.metrics_file = workdir / log.FILE
        self.pictures = workdir / "pictures"
        self.pictures.mkdir(exist_ok=True)
        _keep_lines(self.metrics_file, first_step)
        self._lines = self.metrics_file.open("ab", buffering=0)  # nothing is left for the end
        purged = first_step + 1 if first_step else None
        self._tensorboard = EventFile(workdir / "tensorboard", purged)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # every line was told when it was written
            self._lines.close()
        self._tensorboard.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Appends one line to `metrics.jsonl`, and the finite floats to TensorBoard.

        Raises:
          OSError: the line could not be written.
        """
        line = log.line({"step": step, **values}).encode()
        if self._lines.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for name, value in values.items():
            if isinstance(value, float) and math.isfinite(value):
                self._tensorboard.scalar(name if "/" in name else f"train/{name}", value, step)

    def picture(self, step: int, sheet: Image.Image) -> Path:
        """Saves a contact sheet as `pictures/STEP.png` and shows it in TensorBoard."""
        path = self.pictures / f"{step:08d}.png"
        sheet.save(path)
        self._tensorboard.picture("eval", np.asarray(sheet), step)
        return path

    def curves(self) -> Path:
        """Plots what `metrics.jsonl` holds so far into `curves.png`."""
        path = self.metrics_file.with_name("curves.png")
        pictures.save_curves(self.metrics_file.parent, path)
        return path


def _keep_lines(path: Path, last_step: int) -> None:
    """Drops the lines of later steps, and any that was cut off or is none."""
    kept = log.without_later(path.parent, last_step)
    with atomic.replacing(path, overwrite=True) as partial:
        partial.write_text(kept)
