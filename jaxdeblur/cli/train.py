"""Trains a network.

  jaxdeblur train quickstart --workdir runs/quickstart
  python train.py --config configs/quickstart.py --workdir runs/quickstart

Running the same command again goes on where the run stopped. Started by srun or mpirun, as many
processes as there are train one network together (docs/cluster.md). Any key of the configuration
can be set: --config.batch_size=64 --config.model_kwargs.num_blocks=10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxdeblur.errors import InputError, reported
from jaxdeblur.runtime import signals, startup

if TYPE_CHECKING:
    from absl.flags import FlagValues


def main(argv: Sequence[str]) -> None:
    """Trains as a command line says, and ends the process on wrong input.

    Args:
      argv: the program's name, then its arguments.
    """
    with reported():
        startup.keep_freed_memory()  # before the other imports start threads
        from jaxdeblur.cli import flags

        values = flags.parse(argv, _define, __doc__ or "")
        if not values.workdir:
            raise InputError("--workdir is missing; give the run a folder: --workdir runs/first")
        from jaxdeblur.training import train_and_evaluate

        signals.raise_again()  # what a run has begun is ended in order
    with flags.joined(values, values.preempted_status):
        if values.config.get("compilation_cache"):
            startup.use_compilation_cache()
        train_and_evaluate(values.config, values.workdir)


def _define(values: FlagValues) -> None:
    from absl import flags

    flags.DEFINE_string("workdir", None, "Folder or URL of the run.", flag_values=values)
    flags.DEFINE_integer(
        "preempted_status",
        0,
        "Exit status of a run that was asked to end (SIGTERM) and can go on.",
        flag_values=values,
    )
