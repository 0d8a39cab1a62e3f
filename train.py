"""Trains a network.

  python train.py --config configs/quickstart.py --workdir runs/quickstart

Running the same command again goes on where the run stopped. Started by srun or mpirun, as many
processes as there are train one network together (docs/cluster.md). Any key of the configuration
can be set: --config.batch_size=64 --config.model_kwargs.num_blocks=10.
"""

# ruff: noqa: E402
from jaxdeblur import startup

startup.keep_freed_memory()  # before the other imports start threads

from absl import app, flags
from ml_collections import config_flags

from jaxdeblur import cluster
from jaxdeblur.config import parse_flags
from jaxdeblur.training import train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file (configs/NAME.py).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or URL of the run.", required=True)
_PREEMPTED_STATUS = flags.DEFINE_integer(
    "preempted_status", 0, "Exit status of a run that was asked to end (SIGTERM) and can go on."
)
cluster.define_flags()
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    del argv
    with cluster.joined_by_flags(_PREEMPTED_STATUS.value):
        if _CONFIG.value.compilation_cache:
            startup.use_compilation_cache()
        train_and_evaluate(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
