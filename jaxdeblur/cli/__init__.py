"""The `jaxdeblur` command: one file a subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

import jaxdeblur
from jaxdeblur.cli import convert, deblur, doctor, models, prepare
from jaxdeblur.errors import InputError, reported


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; ends the process with status 2 on wrong input."""
    with reported():
        parser = _Parser(prog="jaxdeblur", description="Image deblurring in JAX.")
        parser.add_argument("--version", action="version", version=jaxdeblur.__version__)
        commands = parser.add_subparsers(required=True, metavar="COMMAND")
        for command in (deblur, models, prepare, convert, doctor):
            command.add_parser(commands)
        arguments = parser.parse_args(argv)
        arguments.run(arguments)
