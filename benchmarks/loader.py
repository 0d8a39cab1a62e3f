"""Measures how many training samples the loader gives, without a network behind it.

  python benchmarks/loader.py --config configs/atrous_cifar_small.py --config.data_dir=DIR

Prints samples a second, samples for each second of a core's time, and how the process's memory
grew after the first tenth of the samples.
"""

from __future__ import annotations

import resource
import sys
import time

from absl.flags import DEFINE_integer, FlagValues

from jaxdeblur import config as configuration
from jaxdeblur.cli import flags
from jaxdeblur.data import datasets, pipeline
from jaxdeblur.errors import InputError, reported


def main() -> None:
    with reported():
        values = flags.parse(sys.argv, define, __doc__ or "")
        config, samples = values.config, values.samples
        configuration.check(config)
        if samples < 10 * config.batch_size:
            raise InputError(f"--samples={samples} is less than ten batches of {config.batch_size}")
        print(measure(config, samples // config.batch_size))


def define(values: FlagValues) -> None:
    DEFINE_integer("samples", 20_000, "Samples to load.", lower_bound=1, flag_values=values)


def measure(config, num_batches: int) -> str:
    """Loads that many batches after a tenth as many to warm up; returns the line to print."""
    batches = pipeline.training_batches(config, datasets.open_source(config, "train"))
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
    main()
