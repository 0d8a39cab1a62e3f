"""Pictures of a run: contact sheets blurred | restored | sharp, and training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from jaxdeblur.pixels import from_float
from jaxdeblur.workdir import log

_GAP, _HEADER, _CAPTION = 4, 16, 14  # pixels


def contact_sheet(columns: Mapping[str, np.ndarray], captions: Sequence[str]) -> Image.Image:
    """Draws one row an image, one column a kind, small images enlarged.

    Args:
      columns: float `[N, H, W, 3]` in [0, 1] by title: blurred, restored, sharp.
      captions: N lines of text, one below each row.
    """
    height, width = next(iter(columns.values())).shape[1:3]
    scale = max(1, 128 // max(height, width))
    height, width = height * scale, width * scale
    row_height = height + _CAPTION + _GAP
    size = (len(columns) * (width + _GAP) + _GAP, _HEADER + len(captions) * row_height)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, (title, images) in enumerate(columns.items()):
        left = _GAP + column * (width + _GAP)
        draw.text((left, 2), title, fill="black")
        for row, image in enumerate(images):
            # Nearest neighbour: an enlarged pixel must look like one, not like blur.
            tile = Image.fromarray(from_float(image, np.uint8))
            tile = tile.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, _HEADER + row * row_height))
    for row, caption in enumerate(captions):
        draw.text((_GAP, _HEADER + row * row_height + height), caption, fill="black")
    return sheet


def save_curves(workdir: Path, path: Path) -> None:
    """Plots loss and PSNR over the steps of a workdir's `metrics.jsonl`."""
    from matplotlib.figure import Figure

    lines = log.read_metrics(workdir)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, loss = _series(lines, "loss")
    left.plot(steps, loss)
    scale = "log" if all(x > 0 for x in loss) else "linear"
    left.set(xlabel="step", ylabel="training loss", yscale=scale)
    for key, style, label in (
        ("psnr", "-", "training"),
        ("eval/psnr", "o-", "validation"),
        ("eval/blurred_psnr", "--", "blurred"),
    ):
        right.plot(*_series(lines, key), style, label=label)
    right.set(xlabel="step", ylabel="PSNR (dB)")
    right.legend()
    figure.savefig(path, dpi=100)


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """The steps at which a log has a finite number, and the numbers."""
    found = [
        (line["step"], line[key])
        for line in lines
        if type(line.get(key)) in (int, float) and math.isfinite(line[key])
    ]
    return [step for step, _ in found], [number for _, number in found]
