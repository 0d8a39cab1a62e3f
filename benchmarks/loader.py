"""Measures how many training samples the loader gives, without a network behind it.

  python benchmarks/loader.py --config configs/atrous_cifar_small.py --config.data_dir=DIR

Prints samples a second, samples for each second of a core's time, and how the process's memory
grew after the first tenth of the samples.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from jaxdeblur import config as configuration
from jaxdeblur.data import pipeline
from jaxdeblur.errors import InputError, reported

sys.path.insert(0, str(Path(__file__).parents[1]))  # where configurations find one another

config_flags.DEFINE_config_file("config", None, "File of the experiment: configs/NAME.py.")
flags.DEFINE_integer("samples", 20_000, "Samples to load.", lower_bound=1)
flags.mark_flag_as_required("config")


def main(_: list[str]) -> None:
    with reported():
        config = flags.FLAGS.config
        configuration.check(config)
        if flags.FLAGS.samples < 10 * config.batch_size:
            raise InputError(
                f"--samples={flags.FLAGS.samples} is less than ten batches of {config.batch_size}"
            )
        print(measure(config, flags.FLAGS.samples // config.batch_size))


def measure(config, num_batches: int) -> str:
    """Loads that many batches after a tenth as many to warm up; returns the line to print."""
    batches = pipeline.training_batches(config, pipeline.open_source(config, "train"))
    for _ in range(num_batches // 10):
        next(batches)
    memory, wall, cores = _peak_megabytes(), time.perf_counter(), time.process_time()
    for _ in range(num_batches):
        next(batches)
    wall, cores = time.perf_counter() - wall, time.process_time() - cores
    samples = num_batches * config.batch_size
    return (
        f"{config.dataset}, patches of {config.patch_size}: {samples / wall:.0f} samples/s, "
        f"{samples / cores:.0f} per second of a core; memory {memory:.0f} MB, "
        f"{_peak_megabytes() - memory:+.0f} MB over {samples} samples"
    )


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux gives kB


if __name__ == "__main__":
    app.run(main, flags_parser=configuration.parse_flags)
