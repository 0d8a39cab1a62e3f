"""Pictures of a run: contact sheets blurred | restored | sharp, and training curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jaxdeblur.pixels import from_float

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


def save_curves(metrics_file: Path, path: Path) -> None:
    """Plots loss and PSNR over the steps of a `metrics.jsonl`."""
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    training = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "eval/psnr" in line]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([x["step"] for x in training], [x["loss"] for x in training])
    scale = "log" if all(x["loss"] > 0 for x in training) else "linear"
    left.set(xlabel="step", ylabel="training loss", yscale=scale)
    right.plot([x["step"] for x in training], [x["psnr"] for x in training], label="training")
    steps = [x["step"] for x in evaluations]
    right.plot(steps, [x["eval/psnr"] for x in evaluations], "o-", label="validation")
    right.plot(steps, [x["eval/blurred_psnr"] for x in evaluations], "--", label="blurred")
    right.set(xlabel="step", ylabel="PSNR (dB)")
    right.legend()
    figure.savefig(path, dpi=100)
