"""Measures what restoring pictures in tiles costs in time and memory.

  python benchmarks/tiling.py --model atrous-photo

restores noise of several sizes, each size in a process of its own, with automatic tiles and, up to
--whole megapixels, without; the ratio is of their times, and says what the tiles' margins cost.
Memory is the most that the process held, libraries, compilation and both pictures included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import numpy as np
from runners import peak_resident_bytes

from jaxdeblur.errors import InputError, reported
from jaxdeblur.runtime.startup import keep_freed_memory

SIZES = ("640x480", "1280x720", "3000x2000", "8000x6000")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="atrous-photo", help="what jaxdeblur.load takes")
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WIDTHxHEIGHT")
    parser.add_argument("--tile", default="auto", help="auto or pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timed calls (default: %(default)s)")
    parser.add_argument(
        "--whole", type=float, default=1, metavar="MEGAPIXELS", help="most to restore untiled"
    )
    with reported():
        run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Prints a table, a size a line."""
    tile = int(arguments.tile) if arguments.tile.isdecimal() else arguments.tile
    print("| width x height | seconds | memory MB | untiled seconds | untiled MB | ratio |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for text in arguments.sizes:
        width, height = _size(text)
        case = (arguments.model, height, width, arguments.rounds)
        seconds, memory = in_own_process(*case, tile)
        line = f"| {text} | {seconds:.3g} | {memory / 1e6:.0f} |"
        if width * height <= arguments.whole * 1e6:
            whole_seconds, whole_memory = in_own_process(*case, "off")
            ratio = seconds / whole_seconds
            line += f" {whole_seconds:.3g} | {whole_memory / 1e6:.0f} | {ratio:.2f} |"
        else:
            line += " | | |"
        print(line, flush=True)


def in_own_process(*case) -> tuple[float, int]:
    """Returns the median seconds of a call and the most bytes, measured in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, *case))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise InputError(f"the process of {case} ended; out of memory?") from None
    finally:
        process.join()


def measure(
    connection: Connection, model: str, height: int, width: int, rounds: int, tile: int | str
) -> None:
    """Sends the median seconds of a call and the most bytes of this process."""
    keep_freed_memory()
    from jaxdeblur.weights import load

    deblurrer = load(model)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    small = np.ascontiguousarray(picture[:16, :16])
    deblurrer(small)  # what is done once
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        deblurrer(picture, tile=tile)
        seconds.append(time.perf_counter() - start)
    # The first call compiles.
    connection.send((statistics.median(seconds[1:] or seconds), peak_resident_bytes()))


def _size(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--sizes {text!r}; a size is such as 1280x720")
    return int(parts[0]), int(parts[1])


if __name__ == "__main__":
    main()
