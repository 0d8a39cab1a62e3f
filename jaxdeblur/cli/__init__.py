"""The `jaxdeblur` command: one file, or folder, a subcommand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import jaxdeblur
from jaxdeblur.cli import convert, deblur, doctor, eval, fetch, models, prepare, train
from jaxdeblur.errors import InputError, reported

# Subcommands whose flags are those of the keys of a configuration; they parse them themselves.
_CONFIGURED = {"train": (train, "train a network"), "eval": (eval, "evaluate trained weights")}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; ends the process with status 2 on wrong input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _CONFIGURED:
        command, _ = _CONFIGURED[arguments[0]]
        command.main([f"jaxdeblur {arguments[0]}", *arguments[1:]])
        return
    with reported():
        chosen = _parser().parse_args(arguments)
        chosen.run(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxdeblur", description="Image deblurring in JAX.")
    parser.add_argument("--version", action="version", version=jaxdeblur.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (deblur, models, fetch, prepare, convert, doctor):
        command.add_parser(commands)
    for name, (_, summary) in _CONFIGURED.items():
        commands.add_parser(name, help=summary)
    return parser
