"""Measures how time and memory grow with the image and with the batch, and draws both.

  python benchmarks/scaling.py --output docs/scaling

restores square images of several sizes, and trains on batches of 128x128 patches, with one
network, each size in a process of its own. Writes PATH.json and PATH.png. Memory is the most that
the process held beyond its libraries, compilation included.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import ScalarFormatter
from runners import OURS, Case, Worker, in_own_process, write_inputs
from speed import describe_machine

from jaxdeblur.errors import InputError, nearest, reported
from jaxdeblur.models import PRESETS

PATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="atrous_net_small", help="default: %(default)s")
    parser.add_argument(
        "--megapixels", type=float, nargs="+", default=[0.25, 0.5, 1, 2, 4, 8], metavar="N"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, help="timed calls (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--output", type=Path, required=True, metavar="PATH")
    with reported():
        run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Measures, writes and draws."""
    if arguments.network not in PRESETS:
        raise InputError(f"--network {arguments.network!r}; {nearest(arguments.network, PRESETS)}")
    if arguments.rounds < 1:
        raise InputError(f"--rounds {arguments.rounds} must be at least 1")
    if min(arguments.megapixels) < 0.001 or min(arguments.batches) < 1:
        raise InputError("--megapixels must be at least 0.001, --batches at least 1")
    if not arguments.output.absolute().parent.is_dir():
        raise InputError(f"the folder of --output {str(arguments.output)!r} does not exist")
    # Sides are multiples of 8, which every network takes.
    sides = [8 * round(math.sqrt(megapixels * 1e6) / 8) for megapixels in arguments.megapixels]
    images = [Case(arguments.network, "inference", 1, side, side) for side in sides]
    steps = [Case(arguments.network, "training", n, PATCH, PATCH) for n in arguments.batches]
    header = {**describe_machine(), "network": arguments.network, "rounds": arguments.rounds}
    rows = []
    for case in (*images, *steps):
        rows.append(measure(case, arguments.device, arguments.rounds))
        print("{case}: {seconds:.2f} s, {memory_mb:.0f} MB".format_map(rows[-1]), flush=True)
        report = json.dumps({**header, "rows": rows}, indent=2)
        arguments.output.with_suffix(".json").write_text(report + "\n")
    draw(rows, header).savefig(arguments.output.with_suffix(".png"), dpi=120)


def measure(case: Case, device: str, rounds: int) -> dict[str, Any]:
    """Returns the median seconds of a call and the most memory."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs.npz")
        in_own_process(write_inputs, case, inputs)
        flops = int(np.load(inputs)["flops"])
        worker = Worker(OURS, case, inputs, device)
        try:
            worker.ask(None)
            seconds = statistics.median(x for _ in range(rounds) for x in worker.ask("calls"))
            memory = worker.ask("memory")
        finally:
            worker.stop()
    return {
        "case": str(case),
        "work": case.work,
        "batch": case.batch,
        "megapixels": case.batch * case.height * case.width / 1e6,
        "seconds": seconds,
        "memory_mb": memory / 1e6,
        "gflop_per_second": flops / seconds / 1e9,
    }


def draw(rows: list[dict[str, Any]], header: dict[str, Any]):
    """Returns a figure: time and memory, of inference by image and of training by batch."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex="col", layout="constrained")
    for column, (work, key, title) in enumerate(
        (
            ("inference", "megapixels", "one image, megapixels"),
            ("training", "batch", f"batch of {PATCH}x{PATCH} patches"),
        )
    ):
        chosen = [row for row in rows if row["work"] == work]
        x = [row[key] for row in chosen]
        for axis, (value, label) in zip(
            axes[:, column], (("seconds", "seconds"), ("memory_mb", "MB at most")), strict=True
        ):
            y = [row[value] for row in chosen]
            axis.plot(x, y, "o-")
            axis.plot(x, [y[-1] * step / x[-1] for step in x], ":", color="grey", label="linear")
            axis.set(xscale="log", yscale="log", ylabel=label, ylim=(min(y) / 2, max(y) * 2))
            axis.grid(which="both", alpha=0.3)
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.set_xticks(x, [f"{step:.2g}" for step in x])
            axis.minorticks_off()
        axes[0, column].set_title(f"{header['network']}, {work}")
        axes[1, column].set_xlabel(title)
        axes[0, column].legend()
    return figure


if __name__ == "__main__":
    main()
