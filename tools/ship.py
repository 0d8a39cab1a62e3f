"""Ships the weights of a run: the file, its card, and the run's configuration and log.

  python tools/ship.py run WORKDIR [WORKDIR ...] NAME [--weights FILE]
  python tools/ship.py figures NAME --data_dir DIR

The first takes the last checkpoint of a finished run into jaxdeblur/pretrained/NAME.safetensors and
the run's configuration and log into results/training/NAME; of several runs that led to one another,
the weights of the last, or a FILE that tools/combine.py made of theirs, and the logs of the
others into NAME/1 and so on. The second, after tools/results.py has measured them,
writes their figures into the card, and the `limits` of what they plausibly change, on the
photographs DIR/photos/val (tools/limits.py). What else a card says, NAME.json, is written by
hand.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import limits

from jaxdeblur import weights
from jaxdeblur.errors import InputError, reported
from jaxdeblur.evaluation import tables
from jaxdeblur.workdir import settings

ROOT = Path(__file__).parents[1]
PRETRAINED = ROOT / "jaxdeblur" / "pretrained"
LOGS = ROOT / "results" / "training"

# Keys of a configuration that say where something lay on the machine that trained.
PLACES = ("data_dir", "photo_dir", "camera_response")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="ship the last checkpoint of a finished run")
    run.add_argument("workdirs", type=Path, nargs="+", metavar="WORKDIR")
    run.add_argument("name", metavar="NAME")
    run.add_argument("--weights", type=Path, metavar="FILE", help="default: the last checkpoint's")
    run.set_defaults(run=lambda given: ship(given.workdirs, given.name, given.weights))
    figures = commands.add_parser("figures", help="write what was measured into the card")
    figures.add_argument("name", metavar="NAME")
    figures.add_argument("--data_dir", type=Path, metavar="DIR", required=True)
    figures.set_defaults(run=lambda arguments: add_figures(arguments.name, arguments.data_dir))
    with reported():
        arguments = parser.parse_args()
        arguments.run(arguments)


def ship(workdirs: Sequence[Path], name: str, combined: Path | None = None) -> None:
    """Copies weights, configuration and log, and notes the file's hash on the card.

    Args:
      workdirs: of runs that led to one another, in order.
      name: of the weights.
      combined: a file of weights that were made of the runs'; None takes those of the last run.

    Raises:
      InputError: no run, one that has not ended, or no such file.
    """
    *before, last = workdirs
    config = [settings.read(workdir) for workdir in workdirs][-1]  # of all, before anything changes
    checkpoint = last / "checkpoints" / str(config["num_steps"])
    if not checkpoint.is_dir():
        raise InputError(f"{last} has no checkpoint of its last step, {config['num_steps']}")
    path = PRETRAINED / f"{name}.safetensors"
    weights.save(path, weights.load(combined or checkpoint))
    shutil.rmtree(LOGS / name, ignore_errors=True)
    keep_log(last, LOGS / name)
    for number, workdir in enumerate(before, start=1):
        keep_log(workdir, LOGS / name / str(number))
    write_card(
        name,
        log=f"results/training/{name}",
        seed=config["seed"],
        date=str(datetime.date.today()),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def keep_log(workdir: Path, folder: Path) -> None:
    """Copies the configuration and the log of a run, without places of the machine."""
    folder.mkdir(parents=True)
    # Lines of no floats of nine digits: they are read by people.
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("".join(rounded(line) + "\n" for line in lines))
    config = settings.read(workdir)
    named = {key: "DIR" if key in PLACES and value else value for key, value in config.items()}
    named["init_from"] = portable(config["init_from"])
    (folder / "config.json").write_text(json.dumps(named, indent=2) + "\n")
    if (workdir / "curves.png").exists():
        shutil.copyfile(workdir / "curves.png", folder / "curves.png")


def portable(source: str) -> str:
    """Weights as a card names them: a checkpoint with its run, else the file or the name alone."""
    parts = Path(source).parts
    return "/".join(parts[-3:] if parts[-2:-1] == ("checkpoints",) else parts[-1:])


def rounded(line: str) -> str:
    """A line of a log with five digits of each number."""
    values = json.loads(line)
    return json.dumps(
        {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values.items()}
    )


def add_figures(name: str, data_dir: Path) -> None:
    """Writes the figures of every table, and the limits, into the card."""
    found = figures_of(name)
    if not found:
        raise InputError(f"no table in results/ has rows of {name!r}; run tools/results.py")
    most = limits.measure(name, str(data_dir / "photos"))
    write_card(
        name,
        figures=found,
        limits={kind: round(2 * value, 3) for kind, value in most.items()},
        limits_command=f"python tools/limits.py --model {name} --data_dir DIR",
    )


def figures_of(name: str) -> list[dict[str, Any]]:
    """The rows of whole evaluations of some weights, of all tables."""
    rows = [row for path in sorted((ROOT / "results").glob("*.csv")) for row in tables.read(path)]
    return [
        {
            "data": row.data,
            "protocol": row.protocol.split("; ")[0],
            "psnr": row.psnr,
            "ssim": row.ssim,
            "mse": row.mse,
            "blurred_psnr": row.blurred_psnr,
            "least_gain": row.least_gain,
        }
        for row in rows
        if row.weights == name and row.part is None
    ]


def write_card(name: str, **values: Any) -> None:
    """Sets values of a card, and keeps the others."""
    path = PRETRAINED / f"{name}.json"
    card = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(card | values, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
