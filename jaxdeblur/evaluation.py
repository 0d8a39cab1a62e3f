"""Evaluation: PSNR, SSIM and MSE of restored and of blurred images, one row per image."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console
from rich.table import Table

from jaxdeblur import config as configuration
from jaxdeblur import distributed, metrics, pictures, restore, weights
from jaxdeblur.data import pipeline
from jaxdeblur.data.blur import make_pair
from jaxdeblur.errors import InputError
from jaxdeblur.models.layers import current_frame
from jaxdeblur.progress import ProgressLine

METRICS = {"psnr": metrics.psnr, "ssim": metrics.ssim, "mse": metrics.mse}

# Published figures of the test split: of each network, and of the blurred images themselves.
PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "cifar10": {
        "blurred": {"psnr": 24.64, "ssim": 0.7127, "mse": 6.34e-3},
        "carlo_net": {"psnr": 29.34, "ssim": 0.905, "mse": 2.11e-3},
        "kaist_net": {"psnr": 31.53, "ssim": 0.9012, "mse": 1.77e-3},
        "atrous_net": {"psnr": 33.61, "ssim": 0.9237, "mse": 1.50e-3},
    },
    "reds": {
        "blurred": {"psnr": 27.048, "ssim": 0.7617, "mse": 3.88e-3},
        "kaist_net": {"psnr": 28.70, "ssim": 0.806, "mse": 2.42e-3},
        "atrous_net": {"psnr": 32.42, "ssim": 0.9009, "mse": 1.05e-3},
    },
}


def evaluation_step(
    variables: Any,
    batch: dict[str, jax.Array],
    *,
    apply: Callable[..., Any] | None,
    max_sigma: float,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Restores one batch and measures it.

    Args:
      variables: what `apply` takes first.
      batch: see `make_pair`.
      apply: the network, `(variables, blurred) -> restored`; None measures the blurred alone.
      max_sigma: see `gaussian_blur`.

    Returns:
      See `measure`.
    """
    blurred, sharp = make_pair(batch, max_sigma)
    restored = None if apply is None else jnp.clip(apply(variables, blurred), 0, 1)
    return measure(current_frame(blurred), sharp, restored)


def measure(
    blurred: jax.Array, sharp: jax.Array, restored: jax.Array | None
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Compares images `[B, H, W, 3]` in [0, 1] with the sharp ones.

    Returns:
      Metrics `[B]` by name (those of the blurred images as `blurred_NAME`), and the images by name.
    """
    images = {"blurred": blurred, "sharp": sharp}
    rows = {f"blurred_{name}": metric(blurred, sharp) for name, metric in METRICS.items()}
    if restored is not None:
        images["restored"] = restored
        rows |= {name: metric(restored, sharp) for name, metric in METRICS.items()}
    return rows, images


@dataclasses.dataclass(frozen=True)
class Result:
    """What an evaluation measured.

    Attributes:
      rows: for each of N images its `index`, its `sigma` where it has one, and its metrics, `[N]`
        each.
      shown: n of the row numbers.
      images: of these rows, `blurred`, `sharp` and, with a network, `restored`: n of `[H, W, 3]`
        each.
    """

    rows: dict[str, np.ndarray]
    shown: list[int]
    images: dict[str, list[np.ndarray]]

    def means(self) -> dict[str, float]:
        """The mean of each metric; infinite PSNR, of images equal to the sharp, is left out."""
        return {
            name: float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else np.inf
            for name, values in self.rows.items()
            if name.removeprefix("blurred_") in METRICS
        }

    def unchanged(self) -> float:
        """The share of images that the blur left as they were."""
        return float(np.isinf(self.rows["blurred_psnr"]).mean())

    def contact_sheet(self) -> Image.Image:
        """The images, blurred | restored | sharp, each row with its PSNR."""
        columns = {
            name: np.stack(self.images[name])
            for name in ("blurred", "restored", "sharp")
            if name in self.images
        }
        captions = []
        for i in self.shown:
            caption = f"{self.rows['blurred_psnr'][i]:.2f} dB"
            if "sigma" in self.rows:
                caption = f"sigma {self.rows['sigma'][i]:.2f}: {caption}"
            if "psnr" in self.rows:
                caption += f" -> {self.rows['psnr'][i]:.2f} dB"
            captions.append(caption)
        return pictures.contact_sheet(columns, captions)


def make_step(
    config: ConfigDict, module: nn.Module | None, channels: int
) -> tuple[Callable[[Any, Any], Any], Callable[[pipeline.Batch], Any]]:
    """Returns what restores and measures a batch, and what places one for it.

    Args:
      config: patches are divided among the devices, whole frames restored in tiles.
      module: the network; None measures the blurred images alone.
      channels: of its input; a network of image mode sees the current frame of three.

    Returns:
      `(variables, placed batch) ->` what `measure` returns, and `host batch -> placed batch`.
    """
    if not config.eval_patch_size:
        return _whole_frame_step(module, channels), lambda batch: batch

    def apply(variables, blurred):
        seen = current_frame(blurred) if channels == 3 else blurred
        return module.apply(variables, seen)  # type: ignore[union-attr]

    replicated, sharded = distributed.shardings()
    step = functools.partial(
        evaluation_step, apply=None if module is None else apply, max_sigma=config.max_sigma
    )
    step = jax.jit(step, in_shardings=(replicated, sharded), out_shardings=replicated)
    return step, functools.partial(pipeline.to_devices, sharding=sharded)


def _whole_frame_step(module: nn.Module | None, channels: int) -> Callable[[Any, Any], Any]:
    """An `evaluation_step` for batches of one frame of any size."""
    jitted = jax.jit(measure)

    def step(variables, batch):
        blurred, sharp = make_pair(batch, max_sigma=0)
        seen = np.asarray(blurred if channels == 9 else current_frame(blurred))
        restored = None
        if module is not None:
            restored = restore.restore(module, variables, seen, restore.Options(), limits={})
        return jitted(current_frame(blurred), sharp, restored)

    return step


def evaluate(
    step: Callable[[Any, Any], Any],
    variables: Any,
    batches: Iterable[tuple[pipeline.Batch, int]],
    place: Callable[[pipeline.Batch], Any],
    *,
    total: int,
    num_pictures: int = 8,
    progress: Callable[[int], None] = lambda count: None,
) -> Result:
    """Runs an `evaluation_step` over all batches.

    Args:
      step: see `make_step`.
      variables: the network's variables.
      batches: host batches with the number of images that count, see `evaluation_batches`.
      place: see `make_step`.
      total: number of images.
      num_pictures: how many of them to keep, evenly spread; only those of the first one's size.
      progress: called with the number of images done.
    """
    rows: list[dict[str, np.ndarray]] = []
    spread = {round(i * total / num_pictures) for i in range(num_pictures)}
    shown: list[int] = []
    images: dict[str, list[np.ndarray]] = {}
    done = 0
    for batch, count in batches:
        measured, pictured = step(variables, place(batch))
        own = {name: batch[name] for name in ("index", "sigma") if name in batch}
        rows.append({name: np.asarray(x)[:count] for name, x in {**own, **measured}.items()})
        for i in sorted(spread & set(range(done, done + count))):
            first = images["sharp"][0].shape if images else None
            if first in (None, pictured["sharp"].shape[1:]):
                shown.append(i)
                for name, values in pictured.items():
                    images.setdefault(name, []).append(np.asarray(values[i - done]))
        done += count
        progress(done)
    table = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return Result(table, shown, images)


def run(
    config: ConfigDict,
    *,
    source: str | Path | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluates trained weights, or the blurred images alone, on the test split.

    Args:
      config: the data and the protocol; the network comes from the weights' card.
      source: what `weights.load` takes; None measures the blurred images alone.
      output: folder for `results.json`, `per_image.csv` and `images.png`; made where missing.

    Returns:
      The contents of `results.json`, where infinite values are null.

    Raises:
      InputError: wrong configuration, data, weights or output folder, or a size that the network
        does not take.
    """
    configuration.check(config)
    images = pipeline.open_source(config, "test")
    deblurrer = None if source is None else weights.load(source)
    channels = 3 if deblurrer is None else deblurrer.card["channels"]
    if channels > pipeline.input_channels(config):
        raise InputError(
            f"{str(source)!r} is a network of video mode ({channels} channels); "
            f"{images.name} needs one of image mode"
        )
    folder = None if output is None else _make_folder(output)
    total = len(images) * config.eval_repeats
    module = None if deblurrer is None else deblurrer.module
    step, place = make_step(config, module, channels)
    variables = {} if deblurrer is None else deblurrer.variables()
    variables = jax.device_put(variables, distributed.shardings()[0])
    batches = pipeline.evaluation_batches(config, images)
    with ProgressLine("evaluation", total) as progress:
        result = evaluate(step, variables, batches, place, total=total, progress=progress.update)
    summary = summarise(result, config, images.name, deblurrer)
    print_table(summary, config.dataset)
    if folder is not None:
        write(folder, summary, result, images.labels)
    return summary


def _make_folder(output: str | Path) -> Path:
    folder = Path(output).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output = {str(output)!r} cannot be written ({error})") from error
    return folder


def summarise(
    result: Result, config: ConfigDict, data: str, deblurrer: weights.Deblurrer | None
) -> dict[str, Any]:
    """The contents of `results.json`."""
    means = result.means()
    summary: dict[str, Any] = {} if deblurrer is None else {name: means[name] for name in METRICS}
    return summary | {
        "blurred": {name: means[f"blurred_{name}"] for name in METRICS},
        "unchanged": result.unchanged(),
        "num_images": len(result.rows["index"]),
        "protocol": f"{data}, {_protocol(config)}; {metrics.PROTOCOL}",
        "model": None if deblurrer is None else deblurrer.card["model"],
        "card": None if deblurrer is None else deblurrer.card,
        "params": None
        if deblurrer is None
        else sum(x.size for x in jax.tree.leaves(deblurrer.params)),
    }


def _protocol(config: ConfigDict) -> str:
    """What is evaluated, in words."""
    size, repeats = config.eval_patch_size, config.eval_repeats
    if config.dataset in pipeline.CLIPS:
        if not size:
            return "whole frames"
        times = f", {repeats} of each frame" if repeats > 1 else ", one of each frame"
        return f"random {size}x{size} crops{times}, seed {config.seed}"
    bounds = f"({config.min_sigma:g}, {config.max_sigma:g})"
    blur = (
        f"each {repeats} times, the r-th with sigma from the r-th of {repeats} parts of {bounds}"
        if repeats > 1
        else f"each once, sigma uniform in {bounds}"
    )
    return f"{size}x{size} pixels, {blur}, seed {config.seed}, OpenCV's 8-bit GaussianBlur"


def print_table(summary: dict[str, Any], dataset: str) -> None:
    """Prints the figures beside the published ones."""
    published = PUBLISHED.get(dataset, {})
    rows = [("blurred", summary["blurred"])]
    if "blurred" in published:
        rows.append(("blurred, published", published["blurred"]))
    if summary["model"] is not None:
        name = summary["model"]
        rows.append((f"{name}, {summary['params']:,} parameters", summary))
        if name in published:
            rows.append((f"{name}, published", published[name]))
    table = Table("", "PSNR dB", "SSIM", "MSE 1e-3", caption=summary["protocol"])
    for title, row in rows:
        table.add_row(title, f"{row['psnr']:.2f}", f"{row['ssim']:.4f}", f"{1e3 * row['mse']:.2f}")
    console = Console()
    console.print(table)
    console.print(
        f"{summary['num_images']} images; {100 * summary['unchanged']:.1f} % of them are the same "
        "blurred and sharp (their PSNR is infinite)",
        highlight=False,
    )


def write(folder: Path, summary: dict[str, Any], result: Result, labels) -> None:
    """Writes `results.json`, `per_image.csv` and `images.png` into a folder that exists."""
    # JSON has no infinity, which the PSNR of unchanged images is.
    strict = json.loads(json.dumps(summary), parse_constant=lambda _: None)
    (folder / "results.json").write_text(json.dumps(strict, indent=2, allow_nan=False) + "\n")
    with (folder / "per_image.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        columns = [name for name in result.rows if name != "index"]
        writer.writerow(["image", *columns])
        for i, index in enumerate(result.rows["index"]):
            writer.writerow([labels[index], *(f"{result.rows[name][i]:.6g}" for name in columns)])
    result.contact_sheet().save(folder / "images.png")
