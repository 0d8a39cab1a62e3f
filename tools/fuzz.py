"""Restores random folders with the command itself, and checks what it leaves.

  python tools/fuzz.py --folders 2000 --seed 0

Every folder is made of its own seed: odd names, small pictures of all formats, damaged and foreign
files, links, permissions, earlier results, now and then videos. `jaxdeblur deblur` runs over it
with random options; one folder of ten is given to two processes at once, or to one that is killed
or asked to end at a random moment, after which the same command runs again. Checked is (see
`fuzz_checks.py`) that originals stay as they are, that whole results are all there is, that what is
wrong is told, and how the command ends. Exits with status 1 if anything is not so, and says which
seed repeats it:

  python tools/fuzz.py --folders 1 --seed 1234 --keep
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import tempfile
import time
from pathlib import Path

import fuzz_checks
import fuzz_folders
import fuzz_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folders", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first folder; the next has + 1")
    parser.add_argument("--keep", action="store_true", help="keep folders of failures")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.folders)
    raise SystemExit(bool(run(seeds, keep=arguments.keep)))


def run(seeds: range, *, keep: bool = False) -> list[str]:
    """Tries the folders of some seeds, and prints a summary; returns what is wrong."""
    start = time.monotonic()
    problems: list[str] = []
    tally: collections.Counter[str] = collections.Counter()
    place = Path(tempfile.mkdtemp(prefix="jaxdeblur-fuzz-"))
    place.chmod(0o755)
    try:
        with fuzz_runs.Commands(place) as commands:
            for seed in seeds:
                found = try_folder(seed, place / str(seed), commands, tally)
                for problem in found:
                    print(f"FAILED seed {seed}: {problem}", flush=True)
                problems += found
                if not (keep and found):
                    remove(place / str(seed))
    finally:
        if keep and problems:
            print(f"kept: {place}")
        else:
            remove(place)
    counts = ", ".join(f"{count} {what}" for what, count in sorted(tally.items()))
    seconds = time.monotonic() - start
    print(f"{len(seeds)} folders in {seconds:.0f} s: {counts}; {len(problems)} failures")
    return problems


def try_folder(
    seed: int, place: Path, commands: fuzz_runs.Commands, tally: collections.Counter[str]
) -> list[str]:
    """Makes the folder of a seed, runs the command, and returns what is wrong."""
    case = fuzz_folders.make(seed, place)
    before = fuzz_checks.snapshot(place)
    ends = fuzz_runs.run(case, commands)
    after = fuzz_checks.snapshot(place)
    tally["commands"] += len(ends)
    tally["ended by a signal"] += sum(end.signalled for end in ends)
    tally["photographs and videos"] += len(case.sources)
    problems = fuzz_checks.problems(case, ends, before, after)
    tally["results"] += len(after.keys() - before.keys())
    return [f"{problem}   ({' '.join(map(ascii, case.arguments))})" for problem in problems]


def remove(place: Path) -> None:
    """Removes a folder, whatever the permissions in it are."""
    for folder, below, _ in os.walk(place):
        for name in below:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
