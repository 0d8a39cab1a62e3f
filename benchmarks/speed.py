"""Times the networks against plain Flax and PyTorch, in one run on one machine.

  python benchmarks/speed.py --output speed
  python benchmarks/speed.py --cases atrous_net:training:16x32x32 --rounds 4

needs the installed package with its `train` extra; PyTorch (`pip install torch`) is optional, and
`PyTorch compiled` needs a C++ compiler besides. Training is the forward pass, the L1 loss, the
gradients and Adam's update. The variants are

  jaxdeblur              the package's networks
  jaxdeblur sharded      the same on several devices, on a CPU one for each core, as with
                         `JAX_NUM_CPU_DEVICES=2 python eval.py ...` on two: they divide the batch,
                         of a single image the columns (`jaxdeblur/convolutions/shares.py`)
  plain Flax             the networks as one writes them with nn.Conv and nn.ConvTranspose
  PyTorch                eager, NCHW tensors in their default layout (of MAXIM, a network of JAX,
                         there is none)
  PyTorch channels_last  eager, in the NHWC layout
  PyTorch compiled       the same under torch.compile

All start from the same weights and see the same batch, and their results must agree before they
are timed: restored images, or the loss after an update. In each round every variant is called once
untimed and then for half a second, three times at least, fewer where that takes over a minute, so
that other load on the machine meets all alike; and matrix products are timed, the fastest of which
is taken as the machine's peak. With one round each variant's process ends before the next one's
begins, so that the largest cases need memory for one alone.
The table gives medians over all calls. Memory is the most that a variant's process held beyond its
libraries, compilation included; the first call is given without the time of a later one.
The package's networks are compiled with `restore.compiler_options()` and
`startup.training_options()`, as restoring photographs and training are.

`maxim_effort1` is MAXIM of which the first stage alone is computed.
FLOPs are those of the direct convolutions: 2*K*K*in*out for each pixel, three times that for
training. A formulation that needs fewer can exceed the peak.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from runners import (
    ALTERED,
    OURS,
    PRECISIONS,
    TORCH,
    VARIANTS,
    Case,
    Worker,
    in_own_process,
    versions,
    write_inputs,
)

from jaxdeblur.errors import InputError, nearest, reported
from jaxdeblur.models import PRESETS

NETWORKS = ("carlo_net", "kaist_net", "atrous_net", "atrous_net_reds", "atrous_net_small")
SIZES = (
    "training:32x32x32",
    "training:4x256x256",
    "inference:32x32x32",
    "inference:1x256x256",
    "inference:1x720x1280",
)
LARGE_NETWORKS = ("nafnet", "nafnet_64", "maxim", "maxim_effort1")
# MAXIM takes multiples of 64.
LARGE_SIZES = ("training:1x256x256", "inference:1x256x256", "inference:1x768x1280")
# Relative, of the largest value. Adam's first update is nearly the gradient's sign, which
# rounding flips where it is tiny.
TOLERANCE = {"float32": 1e-3, "tf32": 3e-2, "bfloat16": 1e-1}


@dataclasses.dataclass
class Results:
    """What a case's variants were measured to do, by their names.

    Attributes:
      firsts: the seconds of the first call, and what was computed.
      seconds: of every timed call.
      memory: bytes.
      failures: why a variant has no result.
      peak: of the machine, in FLOP/s.
    """

    firsts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    peak: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", nargs="+", metavar="NETWORK:WORK:BxHxW", help="default: the whole table"
    )
    parser.add_argument("--variants", nargs="+", default=VARIANTS, metavar="NAME")
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of every variant (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, help="default: float32, on a GPU all"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=300,
        metavar="SECONDS",
        help="give a variant up whose first two calls take longer (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, metavar="PATH", help="write PATH.json and PATH.md")
    with reported():
        run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Measures case after case; prints and writes the table as it grows."""
    if arguments.rounds < 1:
        raise InputError(f"--rounds {arguments.rounds} must be at least 1")
    if arguments.output and not arguments.output.absolute().parent.is_dir():
        raise InputError(f"the folder of --output {str(arguments.output)!r} does not exist")
    for variant in arguments.variants:
        if variant not in VARIANTS:
            raise InputError(f"--variants {variant!r}; {nearest(variant, VARIANTS)}")
    cases = parse_cases(arguments)
    header = {"device": arguments.device, "rounds": arguments.rounds, **describe_machine()}
    print("\n".join(f"{name}: {value}" for name, value in header.items()), "\n", flush=True)
    rows: list[dict[str, Any]] = []
    for case in cases:
        rows += measure(case, arguments)
        if arguments.output:
            report = {**header, "rows": rows}
            arguments.output.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
            lines = [*(f"- {name}: {value}" for name, value in header.items()), "", table(rows)]
            arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n")
        print(table(rows[-len(arguments.variants) :]), "\n", flush=True)


def parse_cases(arguments: argparse.Namespace) -> list[Case]:
    """Returns the cases that the arguments ask for, in every precision."""
    default = ((NETWORKS, SIZES), (LARGE_NETWORKS, LARGE_SIZES))
    texts = arguments.cases or [
        f"{network}:{size}" for names, sizes in default for network in names for size in sizes
    ]
    precisions = arguments.precisions or (PRECISIONS if arguments.device == "gpu" else ("float32",))
    return [parse_case(text, precision) for text in texts for precision in precisions]


def parse_case(text: str, precision: str = "float32") -> Case:
    """Reads a case from the command line; raises InputError where it is none."""
    try:
        case = Case.parse(text, precision)
    except ValueError as error:
        raise InputError(f"{text!r}; a case is such as atrous_net:training:4x256x256") from error
    known = (*PRESETS, *ALTERED)
    if case.network not in known:
        raise InputError(f"{text!r}: {nearest(case.network, known)}")
    return case


def measure(case: Case, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each variant of one case."""
    together = [arguments.variants]
    one_by_one = [[variant] for variant in arguments.variants]
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs.npz")
        in_own_process(write_inputs, case, inputs)
        flops = int(np.load(inputs)["flops"])
        for variants in one_by_one if arguments.rounds == 1 else together:
            measure_together(case, variants, inputs, arguments, results)
    return summarise(case, arguments.variants, flops, results)


def measure_together(
    case: Case,
    variants: Sequence[str],
    inputs: Path,
    arguments: argparse.Namespace,
    results: Results,
) -> None:
    """Adds to the results those of variants whose processes are there at the same time."""
    workers: dict[str, Worker] = {}
    failures, firsts = results.failures, results.firsts
    try:
        for variant in variants:
            worker = workers[variant] = Worker(variant, case, inputs, arguments.device)
            try:
                firsts[variant] = worker.ask(None, arguments.patience)
            except TimeoutError:
                failures[variant] = f"over {arguments.patience:.0f} s"
            except RuntimeError as error:
                failures[variant] = str(error)
            if variant in failures:  # it may still be computing, beside the others
                workers.pop(variant).stop()
        failures |= check(case, firsts)
        for variant in failures.keys() & workers.keys():
            workers.pop(variant).stop()
        time_rounds(workers, arguments.rounds, results)
        results.memory |= {variant: worker.ask("memory") for variant, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.stop()


def check(case: Case, firsts: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Returns what differs from the package's result, by variant."""
    if OURS not in firsts:
        return {}
    expected = np.asarray(firsts[OURS]["result"])
    errors = {
        variant: np.abs(np.asarray(first["result"]) - expected).max() / np.abs(expected).max()
        for variant, first in firsts.items()
    }
    return {
        variant: f"differs by {error:.1e}"
        for variant, error in errors.items()
        if not error <= TOLERANCE[case.precision]
    }


def time_rounds(workers: dict[str, Worker], rounds: int, results: Results) -> None:
    """Adds to the results the seconds of every variant's calls, and the machine's peak.

    A variant whose process ends goes from `workers` to the failures.
    """
    for _ in range(rounds):
        for variant, worker in list(workers.items()):
            try:
                results.seconds.setdefault(variant, []).extend(worker.ask("calls"))
            except RuntimeError as error:
                results.failures[variant] = str(error)
                workers.pop(variant).stop()
        # One of each framework: their products differ by some percent.
        for worker in {variant in TORCH: worker for variant, worker in workers.items()}.values():
            results.peak = max(results.peak, worker.ask("peak"))


def summarise(
    case: Case, variants: Sequence[str], flops: int, results: Results
) -> list[dict[str, Any]]:
    """Returns one row per variant: medians, rates, ratios; or why there is none."""
    peak, failures = results.peak, results.failures
    medians = {
        variant: statistics.median(seconds)
        for variant, seconds in results.seconds.items()
        if variant not in failures
    }
    best_torch = min((medians[name] for name in TORCH if name in medians), default=None)
    rows = []
    for variant in variants:
        row: dict[str, Any] = {"case": str(case), "precision": case.precision, "variant": variant}
        if variant in failures:
            rows.append({**row, "failure": failures[variant]})
            continue
        median = medians[variant]
        row |= {
            "milliseconds": median * 1e3,
            "gflop_per_second": flops / median / 1e9,
            "share_of_peak": flops / median / peak,
            "peak_gflop_per_second": peak / 1e9,
            "memory_mb": results.memory[variant] / 1e6,
            "compile_seconds": max(results.firsts[variant]["first_seconds"] - median, 0),
            "time_to_best_pytorch": median / best_torch if best_torch else None,
            "all_milliseconds": [elapsed * 1e3 for elapsed in results.seconds[variant]],
        }
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table; a ratio below 1 is faster than the best PyTorch."""
    lines = [
        "| case | precision | variant | ms | time / best PyTorch | GFLOP/s | of peak | memory MB "
        "| first call s |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        names = f"| {row['case']} | {row['precision']} | {row['variant']} |"
        if "failure" in row:
            lines.append(f"{names} {row['failure']} | | | | | |")
            continue
        ratio = row["time_to_best_pytorch"]
        lines.append(
            f"{names} {row['milliseconds']:.1f} | {'' if ratio is None else f'{ratio:.2f}'} "
            f"| {row['gflop_per_second']:.0f} | {row['share_of_peak']:.0%} "
            f"| {row['memory_mb']:.0f} | {row['compile_seconds']:.1f} |"
        )
    return "\n".join(lines)


def describe_machine() -> dict[str, Any]:
    """Returns what the numbers depend on besides the arguments."""
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        **versions(),
    }


def cpu_model() -> str:
    """Returns the processor's name, from Linux where it is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
