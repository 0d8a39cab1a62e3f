"""`jaxdeblur doctor`: what a report of a problem should begin with.

A section that fails says so in a line, and the others follow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from jaxdeblur.cli.doctor import cluster, devices, machine, versions, workdir
from jaxdeblur.cli.doctor.common import Line, until_failure
from jaxdeblur.errors import InputError

_NEEDED = ("devices", "data", "workdir")  # sections without which training fails
_WIDTH = 21  # of names; those of variables can be longer


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say what is installed, and whether devices and data work",
        description="Says what is installed, what the machine has and whether its devices work; "
        "with --data-dir and --workdir also whether those do. Put all of it into the report of a "
        "problem. Ends with status 1 if something that training needs is broken.",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="try to read this dataset")
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="what DIR holds, as config.dataset names it (default: guessed)",
    )
    parser.add_argument(
        "--variant",
        default="blur",
        metavar="NAME",
        help="the blurred frames of clips, such as blur_jpeg (default: %(default)s)",
    )
    parser.add_argument(
        "--workdir", metavar="DIR", help="look at this folder of a training run, or its URL"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.dataset is not None and arguments.data_dir is None:
        raise InputError(f"--dataset {arguments.dataset} says what --data-dir holds; give both")
    sections = {
        "versions": versions.lines,
        "machine": machine.lines,
        "cluster": cluster.lines,
        "devices": devices.lines,
    }
    if arguments.data_dir is not None:
        sections["data"] = lambda: _data(arguments)
    if arguments.workdir is not None:
        sections["workdir"] = lambda: workdir.lines(arguments.workdir)
    broken = []
    for title, lines in sections.items():
        _say(title)
        for line in until_failure(lines, needed=title in _NEEDED):
            _say(f"  {line.name + ':':{_WIDTH}} {' '.join(line.value.split())}")
            if line.broken:
                broken.append(f"{line.name} ({title})")
        _say("")
    if broken:
        _say(f"broken, and needed to train: {', '.join(broken)}")
        raise SystemExit(1)
    _say("nothing that training needs is broken")


def _data(arguments: argparse.Namespace) -> Iterator[Line]:
    from jaxdeblur.cli.doctor import data  # it needs the extra `train`

    return data.lines(arguments.data_dir, arguments.dataset, arguments.variant)


def _say(text: str) -> None:
    """Prints a line, less what standard output cannot encode: names of files can be any bytes."""
    encoding = sys.stdout.encoding
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
