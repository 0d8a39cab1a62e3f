"""Evaluates trained weights, or, without any, the blurred images themselves.

  jaxdeblur eval atrous_cifar_small --checkpoint atrous-cifar --output out
  python eval.py --config configs/atrous_cifar_small.py --workdir runs/atrous --output out

The configuration says on what data and how; the network comes from the weights. `--table FILE.csv`
adds the figures to a table of results, such as those in `results/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxdeblur.errors import InputError, reported
from jaxdeblur.runtime import startup

if TYPE_CHECKING:
    from absl.flags import FlagValues


def main(argv: Sequence[str]) -> None:
    """Evaluates as a command line says, and ends the process on wrong input.

    Args:
      argv: the program's name, then its arguments.
    """
    with reported():
        startup.keep_freed_memory()  # before the other imports start threads
        from jaxdeblur.cli import flags

        values = flags.parse(argv, _define, __doc__ or "")
        from jaxdeblur import evaluation
    with flags.joined(values):
        for name in ("workdir", "checkpoint"):
            if values[name].value == "":
                raise InputError(f'--{name}="" names nothing; leave it out to measure the blurred')
        if values.workdir and values.checkpoint:
            raise InputError("--workdir and --checkpoint are both given; give one of them")
        if values.config.get("compilation_cache"):
            startup.use_compilation_cache()
        source = values.checkpoint or values.workdir
        evaluation.run(values.config, source=source, output=values.output, table=values.table)


def _define(values: FlagValues) -> None:
    from absl import flags

    for name, what in (
        ("workdir", "Run whose best checkpoint to evaluate."),
        ("checkpoint", "Weights file, checkpoint (WORKDIR/checkpoints/STEP) or name instead."),
        ("output", "Folder for results.json, per_image.csv, images.png."),
        ("table", "CSV file to add the figures to, one row an evaluation."),
    ):
        flags.DEFINE_string(name, None, what, flag_values=values)
