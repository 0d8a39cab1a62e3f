"""Evaluates trained weights, or, without any, the blurred images themselves.

  python eval.py --config configs/atrous_cifar_small.py --workdir runs/atrous --output out

The configuration says on what data and how; the network comes from the weights. `--table FILE.csv`
adds the figures to a table of results, such as those in `results/`.
"""

# ruff: noqa: E402
from jaxdeblur import startup

startup.keep_freed_memory()  # before the other imports start threads

from absl import app, flags
from ml_collections import config_flags

from jaxdeblur import cluster, evaluation
from jaxdeblur.config import parse_flags
from jaxdeblur.errors import InputError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file (configs/NAME.py).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Run whose best checkpoint to evaluate.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Weights file, checkpoint (WORKDIR/checkpoints/STEP) or name instead."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.json, per_image.csv, images.png.")
_TABLE = flags.DEFINE_string(
    "table", None, "CSV file to add the figures to, one row an evaluation."
)
cluster.define_flags()
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    del argv
    with cluster.joined_by_flags():
        if _WORKDIR.value and _CHECKPOINT.value:
            raise InputError("--workdir and --checkpoint are both given; give one of them")
        if _CONFIG.value.compilation_cache:
            startup.use_compilation_cache()
        source = _CHECKPOINT.value or _WORKDIR.value
        evaluation.run(_CONFIG.value, source=source, output=_OUTPUT.value, table=_TABLE.value)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
