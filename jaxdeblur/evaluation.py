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
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console
from rich.table import Table

from jaxdeblur import config as configuration
from jaxdeblur import distributed, metrics, pictures, weights
from jaxdeblur.data import pipeline
from jaxdeblur.data.blur import make_pair
from jaxdeblur.errors import InputError
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
      Metrics `[B]` by name (those of the blurred images as `blurred_NAME`), and the images
      `[B, H, W, 3]` in [0, 1] by name.
    """
    blurred, sharp = make_pair(batch, max_sigma)
    images = {"blurred": blurred, "sharp": sharp}
    rows = {f"blurred_{name}": metric(blurred, sharp) for name, metric in METRICS.items()}
    if apply is not None:
        images["restored"] = jnp.clip(apply(variables, blurred), 0, 1)
        rows |= {name: metric(images["restored"], sharp) for name, metric in METRICS.items()}
    return rows, images


@dataclasses.dataclass(frozen=True)
class Result:
    """What an evaluation measured.

    Attributes:
      rows: for each of N images its `index`, its `sigma` and its metrics, `[N]` each.
      images: the first n images `blurred`, `sharp` and, with a network, `restored`:
        `[n, H, W, 3]` each.
    """

    rows: dict[str, np.ndarray]
    images: dict[str, np.ndarray]

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
        """The first images, blurred | restored | sharp, each row with its PSNR."""
        columns = {
            name: self.images[name]
            for name in ("blurred", "restored", "sharp")
            if name in self.images
        }
        captions = []
        for i, blurred in enumerate(self.rows["blurred_psnr"][: len(columns["sharp"])]):
            caption = f"sigma {self.rows['sigma'][i]:.2f}: {blurred:.2f} dB"
            if "psnr" in self.rows:
                caption += f" -> {self.rows['psnr'][i]:.2f} dB"
            captions.append(caption)
        return pictures.contact_sheet(columns, captions)


def jit_step(
    apply: Callable[..., Any] | None,
    max_sigma: float,
    replicated: jax.sharding.Sharding,
    sharded: jax.sharding.Sharding,
) -> Callable[[Any, Any], Any]:
    """Jits `evaluation_step` for variables on every device and a batch divided among them."""
    step = functools.partial(evaluation_step, apply=apply, max_sigma=max_sigma)
    return jax.jit(step, in_shardings=(replicated, sharded), out_shardings=replicated)


def evaluate(
    step: Callable[[Any, Any], Any],
    variables: Any,
    batches: Iterable[tuple[pipeline.Batch, int]],
    place: Callable[[pipeline.Batch], Any],
    *,
    num_pictures: int = 8,
    progress: Callable[[int], None] = lambda count: None,
) -> Result:
    """Runs an `evaluation_step` over all batches.

    Args:
      step: see `jit_step`.
      variables: the network's variables.
      batches: host batches with the number of images that count, see `evaluation_batches`.
      place: puts a host batch on the devices.
      num_pictures: how many of the first images to keep.
      progress: called with the number of images done.
    """
    rows: list[dict[str, np.ndarray]] = []
    images: dict[str, np.ndarray] = {}
    done = 0
    for batch, count in batches:
        measured, pictured = step(variables, place(batch))
        measured = {"index": batch["index"], "sigma": batch["sigma"], **measured}
        rows.append({name: np.asarray(values)[:count] for name, values in measured.items()})
        if not images:
            first = min(num_pictures, count)
            images = {name: np.asarray(values[:first]) for name, values in pictured.items()}
        done += count
        progress(done)
    return Result({name: np.concatenate([row[name] for row in rows]) for name in rows[0]}, images)


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
    if deblurrer is not None and deblurrer.card["channels"] != 3:
        raise InputError(
            f"{str(source)!r} is a network of video mode ({deblurrer.card['channels']} channels); "
            f"{images.name} needs one of image mode"
        )
    folder = None if output is None else _make_folder(output)
    total = len(images) * config.eval_repeats
    replicated, sharded = distributed.shardings()
    apply = None if deblurrer is None else deblurrer.module.apply
    variables = {} if deblurrer is None else jax.device_put(deblurrer.variables(), replicated)
    with ProgressLine("evaluation", total) as progress:
        result = evaluate(
            jit_step(apply, config.max_sigma, replicated, sharded),
            variables,
            pipeline.evaluation_batches(config, images),
            functools.partial(pipeline.to_devices, sharding=sharded),
            progress=progress.update,
        )
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
    bounds = f"({config.min_sigma:g}, {config.max_sigma:g})"
    repeats = config.eval_repeats
    blur = (
        f"each {repeats} times, the r-th with sigma from the r-th of {repeats} parts of {bounds}"
        if repeats > 1
        else f"each once, sigma uniform in {bounds}"
    )
    summary: dict[str, Any] = {} if deblurrer is None else {name: means[name] for name in METRICS}
    return summary | {
        "blurred": {name: means[f"blurred_{name}"] for name in METRICS},
        "unchanged": result.unchanged(),
        "num_images": len(result.rows["index"]),
        "protocol": f"{data}, {config.eval_patch_size}x{config.eval_patch_size} pixels, {blur}, "
        f"seed {config.seed}, OpenCV's 8-bit GaussianBlur; {metrics.PROTOCOL}",
        "model": None if deblurrer is None else deblurrer.card["model"],
        "card": None if deblurrer is None else deblurrer.card,
        "params": None
        if deblurrer is None
        else sum(x.size for x in jax.tree.leaves(deblurrer.params)),
    }


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
        f"{summary['num_images']} images; the blur left {100 * summary['unchanged']:.1f} % of "
        "them unchanged (their PSNR is infinite)",
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
