"""Measures what `startup.keep_freed_memory` saves: memory faulted in anew, and growth over calls.

  python benchmarks/memory.py

calls a program with large temporary arrays again and again, each way in a process of its own.
Prints the page faults of a call (the median of the later half), and the most memory that the
process held after the first call and after all. Other programs that keep the cores busy can make
it grow.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
from multiprocessing.connection import Connection

from runners import peak_resident_bytes

from jaxdeblur.errors import InputError, reported
from jaxdeblur.runtime import startup

SIDE = 6000  # of the temporary array, 144 MB


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=20, help="(default: %(default)s)")
    with reported():
        arguments = parser.parse_args()
        if arguments.calls < 2:
            raise InputError(f"--calls {arguments.calls} must be at least 2")
        print("| | page faults of a call | MB after the first call | MB after all |")
        print("|---|--:|--:|--:|")
        for name, kept in (("glibc's default", False), ("memory kept", True)):
            faults, first, last = in_process(kept, arguments.calls)
            print(f"| {name} | {faults:,.0f} | {first / 1e6:.0f} | {last / 1e6:.0f} |", flush=True)


def in_process(kept: bool, calls: int) -> tuple[float, int, int]:
    """Measures in a process of its own: what is set up there holds for its life."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, kept, calls))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise InputError("the process that measures ended; out of memory?") from None
    finally:
        process.join()


def measure(connection: Connection, kept: bool, calls: int) -> None:
    """Sends the page faults of a call, and the peak memory after the first call and after all."""
    if kept:
        startup.keep_freed_memory()
    import jax
    import jax.numpy as jnp

    @jax.jit
    def call(x):
        temporary = jnp.tanh(jnp.outer(x, x))
        return temporary @ temporary[:, :200]

    x = jnp.arange(float(SIDE))
    faults, peaks = [], []
    for _ in range(calls):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        call(x).block_until_ready()
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        peaks.append(peak_resident_bytes())
    connection.send((statistics.median(faults[calls // 2 :]), peaks[0], peaks[-1]))


if __name__ == "__main__":
    main()
