"""The `jaxdeblur` command: one file, or folder, a subcommand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxdeblur.errors import InputError, reported
from jaxdeblur.runtime import signals

# Subcommands whose flags are those of the keys of a configuration; they parse them themselves.
_CONFIGURED = {"train": "train a network", "eval": "evaluate trained weights"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; ends the process with status 2 on wrong input.

    Args:
      argv: the arguments; by default those of the process, which then is the command's own: it
        ends at once when it is asked to.
    """
    if argv is not None:
        _run(list(argv))
        return
    signals.end_at_once()
    try:
        _run(sys.argv[1:])
    finally:
        signals.finished()


def _run(arguments: list[str]) -> None:
    # What a subcommand imports is slow: not before signals are heard.
    if arguments and arguments[0] in _CONFIGURED:
        _configured(arguments[0])([f"jaxdeblur {arguments[0]}", *arguments[1:]])
        return
    with reported():
        chosen = _parser().parse_args(arguments)
        chosen.run(chosen)


def _configured(name: str):
    from jaxdeblur.cli import eval, train

    return {"train": train, "eval": eval}[name].main


def _parser() -> argparse.ArgumentParser:
    import jaxdeblur
    from jaxdeblur.cli import convert, deblur, doctor, fetch, models, prepare

    parser = _Parser(prog="jaxdeblur", description="Image deblurring in JAX.")
    parser.add_argument("--version", action="version", version=jaxdeblur.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (deblur, models, fetch, prepare, convert, doctor):
        command.add_parser(commands)
    for name, summary in _CONFIGURED.items():
        commands.add_parser(name, help=summary)
    return parser
