"""What is reported of an evaluation: a summary, files, and rows for a table of results."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxdeblur import catalogue, metrics, weights
from jaxdeblur.data.source import Source
from jaxdeblur.errors import InputError, printable
from jaxdeblur.evaluation import pictures, tables
from jaxdeblur.runtime import atomic, paths

# Published figures of the test split, by dataset: of the blurred images, and of each network, its
# number of parameters among them where it is one of ours. After the name of a network and a comma
# comes what tells it from another one of that name, or the data, where they are others. CIFAR-10
# and REDS: Mancini & Simonati ("Deep Image Deblurring", University of Bologna, 2020); MAXIM: Tu et
# al., CVPR 2022; NAFNet: Chen et al., ECCV 2022, and its repository.
PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "cifar10": {
        "blurred": {"psnr": 24.64, "ssim": 0.7127, "mse": 6.34e-3},
        "carlo_net": {"psnr": 29.34, "ssim": 0.905, "mse": 2.11e-3, "params": 2_663_555},
        "kaist_net": {"psnr": 31.53, "ssim": 0.9012, "mse": 1.77e-3, "params": 11_590_813},
        "atrous_net": {"psnr": 33.61, "ssim": 0.9237, "mse": 1.50e-3, "params": 12_571_011},
    },
    "reds": {
        "blurred": {"psnr": 27.048, "ssim": 0.7617, "mse": 3.88e-3},
        "kaist_net": {"psnr": 28.70, "ssim": 0.806, "mse": 2.42e-3, "params": 11_595_613},
        "UniA Team": {"psnr": 34.44, "ssim": 0.9412},
        "DeblurGAN-v2": {"psnr": 28.92, "ssim": 0.8059},
        "atrous_net": {"psnr": 32.42, "ssim": 0.9009, "mse": 1.05e-3, "params": 24_433_539},
        "maxim, JPEG, val-300": {"psnr": 28.93, "ssim": 0.865, "params": 22_212_795},
        "nafnet, width 64, JPEG, val-300": {"psnr": 29.09, "ssim": 0.8671, "params": 67_888_835},
    },
    "gopro": {
        "maxim": {"psnr": 32.86, "ssim": 0.961, "params": 22_212_795},
        "nafnet, width 32": {"psnr": 32.87, "ssim": 0.9606, "params": 17_111_907},
        "nafnet, width 64": {"psnr": 33.71, "ssim": 0.9668, "params": 67_888_835},
    },
}


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
            if name.removeprefix("blurred_") in metrics.METRICS
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


def summarise(
    result: Result, config: ConfigDict, images: Source, deblurrer: weights.Deblurrer | None
) -> dict[str, Any]:
    """The contents of `results.json`."""
    means = result.means()
    network: dict[str, Any] = {"model": None, "card": None, "params": None}
    summary: dict[str, Any] = {}
    if deblurrer is not None:
        count = sum(x.size for x in jax.tree.leaves(deblurrer.params))
        network = {"model": deblurrer.card["model"], "card": deblurrer.card, "params": count}
        summary = {name: means[name] for name in metrics.METRICS}
    return {
        **summary,
        "blurred": {name: means[f"blurred_{name}"] for name in metrics.METRICS},
        "unchanged": result.unchanged(),
        "num_images": len(result.rows["index"]),
        "protocol": f"{images.name}, {_protocol(config, images)}",
        **({"effort": config.effort} if config.effort else {}),
        **network,
    }


def _protocol(config: ConfigDict, images: Source) -> str:
    """What is evaluated and how, in words."""
    tiles = "" if config.tile == "auto" else f", tile {config.tile}"
    return f"{images.protocol(config)}{tiles}; {metrics.PROTOCOL}"


def print_table(summary: dict[str, Any], dataset: str) -> None:
    """Prints the figures beside the published ones."""
    published = PUBLISHED.get(dataset, {})
    rows = [("blurred", summary["blurred"])]
    if "blurred" in published:
        rows.append(("blurred, published", published["blurred"]))
    if summary["model"] is not None:
        name = summary["model"]
        rows.append((f"{name}, {summary['params']:,} parameters", summary))
        for title, figures in published.items():
            if title.partition(",")[0] == name:
                rows.append((f"{title}, published", figures))
    # As text: a name in square brackets is no colour.
    table = Table("", "PSNR dB", "SSIM", "MSE 1e-3", caption=Text(printable(summary["protocol"])))
    for title, row in rows:
        mse = f"{1e3 * row['mse']:.2f}" if "mse" in row else ""
        table.add_row(Text(printable(title)), f"{row['psnr']:.2f}", f"{row['ssim']:.4f}", mse)
    console = Console()
    console.print(table)
    console.print(
        f"{summary['num_images']} images; {100 * summary['unchanged']:.1f} % of them are the same "
        "blurred and sharp (their PSNR is infinite)",
        highlight=False,
    )


def check_destinations(output: str | Path | None, table: str | Path | None) -> None:
    """Makes the folders of what is to be written, and reads the table that is there.

    Args:
      output: folder for `write`; None where there is none to be.
      table: file for `tables.add`, or None.

    Raises:
      InputError: a folder that cannot be made or written, or a file that is no table of results.
    """
    folders: dict[str, Path] = {}
    if table is not None:
        tables.read(table)
        folders[f"table = {str(table)!r}"] = paths.local(table, "table").parent
    if output is not None:
        folders[f"output = {str(output)!r}"] = paths.local(output, "output")
    for name, folder in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{name} cannot be written ({error})") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{name} cannot be written (no permission to write to {folder})")


def write(
    output: str | Path, summary: dict[str, Any], result: Result, labels: Sequence[str]
) -> None:
    """Writes `results.json`, `per_image.csv` and `images.png` into a folder that exists.

    Every image has its row, also where several have one name. A name that is no text is written
    with escapes.

    Raises:
      InputError: a file cannot be written; those before it are.
    """
    folder = paths.local(output, "output")
    # JSON has no infinity, which the PSNR of unchanged images is.
    strict = json.loads(json.dumps(summary), parse_constant=lambda _: None)
    with atomic.replacing(folder / "results.json", overwrite=True) as partial:
        partial.write_text(json.dumps(strict, indent=2, allow_nan=False) + "\n")
    with (
        atomic.replacing(folder / "per_image.csv", overwrite=True) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        columns = [name for name in result.rows if name != "index"]
        writer.writerow(["image", *columns])
        for i, index in enumerate(result.rows["index"]):
            writer.writerow([labels[index], *(f"{result.rows[name][i]:.6g}" for name in columns)])
    with atomic.replacing(folder / "images.png", overwrite=True) as partial:
        result.contact_sheet().save(partial)


def table_rows(
    summary: dict[str, Any],
    result: Result,
    config: ConfigDict,
    images: Source,
    source: str | Path | None,
) -> list[tables.Row]:
    """The rows of an evaluation: of the whole, then of each part of the range of sigmas.

    Args:
      summary: see `summarise`.
      result: what was measured.
      config: of the evaluation.
      images: what was measured.
      source: of the weights, as `weights.load` takes it.
    """
    gaussian = "sigma" in result.rows
    low, high = config.min_sigma, config.max_sigma
    whole = tables.Row(
        weights="" if source is None else _weights_name(source, summary["model"], config.effort),
        model=summary["model"] or "",
        params=summary["params"],
        data=images.title,
        protocol=_protocol(config, images),
        part=None,
        min_sigma=low if gaussian else None,
        max_sigma=high if gaussian else None,
        date=datetime.date.today(),
        **_figures(result),
    )
    parts = config.eval_repeats if gaussian else 1
    if parts == 1:
        return [whole]
    return [whole, *(_part(whole, result, part, parts) for part in range(parts))]


def _part(whole: tables.Row, result: Result, part: int, parts: int) -> tables.Row:
    """The row of the images of one repeat, whose sigmas are from that part of the range."""
    num_images = len(result.rows["index"]) // parts
    own = slice(part * num_images, (part + 1) * num_images)
    columns = {name: values[own] for name, values in result.rows.items()}
    figures = _figures(dataclasses.replace(result, rows=columns, shown=[], images={}))
    assert whole.min_sigma is not None
    assert whole.max_sigma is not None
    width = (whole.max_sigma - whole.min_sigma) / parts
    low = whole.min_sigma + part * width
    bounds = {"min_sigma": low, "max_sigma": low + width}
    return dataclasses.replace(whole, part=part + 1, **bounds, **figures)


def _figures(result: Result) -> dict[str, Any]:
    figures = {"num_images": len(result.rows["index"]), "unchanged": result.unchanged()}
    if "psnr" in result.rows:
        gains = result.rows["psnr"] - result.rows["blurred_psnr"]
        figures["least_gain"] = float(gains[np.isfinite(gains)].min(initial=np.inf))
    return figures | result.means()


def _weights_name(source: str | Path, model: str, effort: int) -> str:
    """What to call weights: nothing of where they lie but the last names."""
    suffix = f", effort {effort}" if effort else ""
    if str(source) in weights.shipped() or str(source) in catalogue.ENTRIES:
        return f"{source}{suffix}"
    path = Path(os.path.abspath(paths.local(source, "weights")))
    names = path.parts[-3:] if path.parent.name == "checkpoints" else path.parts[-1:]
    return printable(f"{model} ({'/'.join(names)}){suffix}")  # a table is read back as text
