"""Measures what the shipped weights reach, and writes the page that says it, docs/results.md.

  python tools/results.py --data_dir DIR
  python tools/results.py --data_dir DIR --only cifar10 photos
  python tools/results.py --page

The first measures everything anew: DIR has the folders `tfds` (as TFDS prepares CIFAR-10), `reds`,
`gopro` and `photos`. It writes results/NAME.csv, the pictures docs/results/NAME.jpg and the page.
The last writes the page, with its plot, from the tables that are there.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import results_page
from ml_collections import ConfigDict
from PIL import Image

from jaxdeblur import catalogue, evaluation
from jaxdeblur.errors import InputError, nearest, reported
from jaxdeblur.evaluation import pictures, tables
from jaxdeblur.evaluation.results import Result
from jaxdeblur.runtime import startup
from jaxdeblur.weights import shipped

ROOT = Path(__file__).parents[1]

SHEET_ROWS = 3
SHEET_SIDE = 192  # pixels; of larger images the middle is shown

Restored = dict[str, Result]  # of the same images, by weights


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Weights that are evaluated on the same data.

    Attributes:
      config: the name of a configuration.
      folder: of the data.
      weights: names, of which those are taken that are shipped or were fetched; of a network in
        stages "NAME, effort N" computes N of them.
      overrides: of the configuration, one for each evaluation of the same weights.
    """

    config: str
    folder: str
    weights: tuple[str, ...]
    overrides: tuple[dict[str, Any], ...]

    def configs(self, data_dir: Path) -> Iterator[ConfigDict]:
        """The configuration of each evaluation; `data_dir` is the folder of `folder`."""
        for override in self.overrides:
            config = importlib.import_module(f"jaxdeblur.configs.{self.config}").get_config()
            config.update({"data_dir": str(data_dir / self.folder), **override})
            yield config

    def flags(self) -> list[str]:
        """The configuration of the first evaluation as arguments of eval.py."""
        values = {"data_dir": f"DIR/{self.folder}", **self.overrides[0]}
        values = [f"--config.{key}={value}" for key, value in values.items()]
        return [f"--config configs/{self.config}.py", *values]


MAXIM = ("maxim-gopro, effort 1", "maxim-gopro, effort 2", "maxim-gopro")
FRAMES = ("kaist-reds", "atrous-reds", "atrous-photo", *MAXIM)
BENCHMARKS = {
    "cifar10": Benchmark(
        "atrous_cifar_small",
        "tfds",
        ("carlo-cifar", "kaist-cifar", "atrous-cifar"),
        ({"eval_repeats": 8},),
    ),
    "reds": Benchmark("atrous_reds", "reds", FRAMES, ({"eval_patch_size": 0},)),
    "gopro": Benchmark("atrous_gopro", "gopro", FRAMES, ({"eval_patch_size": 0},)),
    "photos": Benchmark(
        "atrous_photos",
        "photos",
        ("atrous-photo",),
        tuple({"min_sigma": sigma, "max_sigma": sigma} for sigma in (1.0, 1.5, 2.0, 3.0)),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, metavar="DIR")
    parser.add_argument(
        "--only", nargs="+", default=list(BENCHMARKS), metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--page", action="store_true", help="measure nothing")
    with reported():
        run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Measures what is asked for, and writes the page."""
    if not arguments.page:
        check(arguments)
        startup.use_compilation_cache()
        for name in arguments.only:
            print(f"== {name}", flush=True)
            measure(name, arguments.data_dir)
    (ROOT / "docs" / "results.md").write_text(page(), encoding="utf-8")
    if rows := table("cifar10"):
        results_page.plot(rows).savefig(ROOT / "docs" / "results" / "cifar10.png", dpi=100)


def check(arguments: argparse.Namespace) -> None:
    """Raises InputError unless all that is to be measured is there."""
    for name in arguments.only:
        if name not in BENCHMARKS:
            raise InputError(f"--only {name!r}; {nearest(name, BENCHMARKS)}")
    if arguments.data_dir is None:
        raise InputError("give --data_dir DIR, or --page to write the page alone")
    for name in arguments.only:
        folder = arguments.data_dir / BENCHMARKS[name].folder
        if not folder.is_dir():
            raise InputError(
                f"--data_dir {str(arguments.data_dir)!r} has no folder {folder.name!r}, which "
                f"{name} needs; --only can leave it out"
            )


def measure(name: str, data_dir: Path) -> None:
    """Evaluates all weights of a benchmark; writes its table and its pictures."""
    benchmark = BENCHMARKS[name]
    here = {*shipped(), *catalogue.fetched()}
    chosen = [weights for weights in benchmark.weights if weights.partition(",")[0] in here]
    groups: list[Restored] = []
    with tempfile.TemporaryDirectory() as scratch:
        new = Path(scratch, "new.csv")
        for config in benchmark.configs(data_dir):
            groups.append({})
            for weights in chosen:
                keep = functools.partial(groups[-1].__setitem__, weights)
                source, _, effort = weights.partition(", effort ")
                config.effort = int(effort or 0)
                evaluation.run(config, source=source, table=new, done=keep)
        rows = tables.read(new)
    for folder in (ROOT / "results", ROOT / "docs" / "results"):
        folder.mkdir(exist_ok=True)
    tables.write(ROOT / "results" / f"{name}.csv", rows)
    contact_sheet(groups).save(ROOT / "docs" / "results" / f"{name}.jpg", quality=65)


def contact_sheet(groups: list[Restored]) -> Image.Image:
    """Draws blurred | restored by each of the weights | sharp, the middles of a few images.

    Args:
      groups: evaluations of the same images by each of the weights; as many rows of each.
    """
    columns: dict[str, list[np.ndarray]] = defaultdict(list)
    captions = []
    for group in groups:
        first = next(iter(group.values()))
        for i in spread(len(first.shown), max(SHEET_ROWS // len(groups), 1)):
            columns["blurred"].append(middle(first.images["blurred"][i]))
            for weights, result in group.items():
                columns[weights].append(middle(result.images["restored"][i]))
            columns["sharp"].append(middle(first.images["sharp"][i]))
            captions.append(caption(group, first.shown[i]))
    stacked = {title: np.stack(images) for title, images in columns.items()}
    return pictures.contact_sheet(stacked, captions)


def spread(total: int, count: int) -> list[int]:
    """Numbers below `total`, as many as `count` if there are, evenly spread."""
    count = min(count, total)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def middle(image: np.ndarray) -> np.ndarray:
    """The middle of an image `[H, W, 3]`, `SHEET_SIDE` pixels at most."""
    for axis in (0, 1):
        side = min(image.shape[axis], SHEET_SIDE)
        first = (image.shape[axis] - side) // 2
        image = image.take(range(first, first + side), axis)
    return image


def caption(group: Restored, row: int) -> str:
    """The PSNR of an image, blurred and restored by each of the weights."""
    rows = next(iter(group.values())).rows
    sigma = f"sigma {rows['sigma'][row]:.2f}, " if "sigma" in rows else ""
    restored = [f"{weights} {result.rows['psnr'][row]:.2f}" for weights, result in group.items()]
    return f"{sigma}dB: blurred {rows['blurred_psnr'][row]:.2f}, {', '.join(restored)}"


def table(name: str) -> list[tables.Row]:
    """The rows of a benchmark, less those of other weights; none if it was never measured."""
    rows = tables.read(ROOT / "results" / f"{name}.csv")
    return [row for row in rows if row.weights in BENCHMARKS[name].weights]


def page() -> str:
    """The text of docs/results.md."""
    flags = {name: benchmark.flags() for name, benchmark in BENCHMARKS.items()}
    return results_page.render({name: table(name) for name in BENCHMARKS}, flags)


if __name__ == "__main__":
    main()
