"""What a run leaves in its workdir: `metrics.jsonl`, TensorBoard files, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from jaxdeblur.evaluation import pictures
from jaxdeblur.workdir import log


class RunLog:
    """`metrics.jsonl`, TensorBoard files and pictures of a workdir; a context manager.

    Args:
      workdir: folder of the run.
      first_step: the step it starts after. Lines of later steps, which a killed run wrote after
        its last checkpoint, are dropped: those steps are made again.
    """

    def __init__(self, workdir: Path, first_step: int):
        self.metrics_file = workdir / log.FILE
        self.pictures = workdir / "pictures"
        self.pictures.mkdir(exist_ok=True)
        _keep_lines(self.metrics_file, first_step)
        self._lines = self.metrics_file.open("a")
        self._tensorboard = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=first_step + 1 if first_step else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._lines.close()
        self._tensorboard.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Appends one line to `metrics.jsonl`, and the values that are floats to TensorBoard."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if isinstance(value, float):
                self._tensorboard.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def picture(self, step: int, sheet: Image.Image) -> Path:
        """Saves a contact sheet as `pictures/STEP.png` and shows it in TensorBoard."""
        path = self.pictures / f"{step:08d}.png"
        sheet.save(path)
        self._tensorboard.add_image("eval", np.asarray(sheet), step, dataformats="HWC")
        return path

    def curves(self) -> Path:
        """Plots what `metrics.jsonl` holds so far into `curves.png`."""
        path = self.metrics_file.with_name("curves.png")
        pictures.save_curves(self.metrics_file, path)
        return path


def _keep_lines(path: Path, last_step: int) -> None:
    """Drops the lines of later steps, and any that was cut off."""
    kept = [line for line in log.read_metrics(path.parent) if line["step"] <= last_step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    partial.replace(path)
