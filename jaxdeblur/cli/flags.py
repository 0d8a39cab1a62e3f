"""The command lines of `train` and `eval`: a configuration, its keys as flags, and a few more."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags, logging

from jaxdeblur.errors import InputError, nearest
from jaxdeblur.runtime import cluster

_CONFIGS = Path(__file__).parents[1] / "configs"


def parse(
    argv: Sequence[str], define: Callable[[flags.FlagValues], None], description: str
) -> flags.FlagValues:
    """Parses a command line, whose first argument may be the configuration.

    With `--help` prints what there is and ends the process.

    Args:
      argv: the program's name, then its arguments.
      define: defines further flags.
      description: what `--help` begins with.

    Returns:
      The flags' values; `config` is the locked configuration.

    Raises:
      InputError: a wrong flag, an unknown key or a value of the wrong type.
    """
    logging.set_verbosity(logging.WARNING)
    # Orbax logs what it raises as well, with tracebacks.
    logging.get_absl_logger().setLevel("CRITICAL")
    values = flags.FlagValues()
    cluster.define_flags(values)
    define(values)
    if {"--help", "-h", "-help"} & set(argv):
        print(f"{description}\n{_help(values)}\n\nconfigurations: {', '.join(names())}")
        raise SystemExit(0)
    from ml_collections import config_flags  # comes with the extra `train`

    argv = _with_config_found(argv)
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
        if values.config is None:
            raise InputError(f"--config is missing; {_choices()}")
        values.config.lock()  # a file that failed to load says so on first use
    except AttributeError as error:  # a key that the locked ConfigDict does not have
        raise InputError(_unknown_key(str(error))) from error
    except (flags.Error, TypeError, OSError) as error:
        raise InputError(error) from error
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; flags begin with --")
    return values


def names() -> list[str]:
    """The configurations that the package has."""
    files = sorted(_CONFIGS.glob("*.py"))
    return [file.stem for file in files if "def get_config(" in file.read_text()]


def _help(values: flags.FlagValues) -> str:
    """A line for each flag, less those that absl brings."""
    lines = ["  --config.KEY=VALUE        Replace a value of the configuration."]
    for name in sorted(set(values) - set(flags.FlagValues()) - {"flagfile", "undefok"}):
        flag = values[name]
        default = "" if flag.default is None else f" (default: {flag.default})"
        lines.append(f"  --{name:23} {flag.help}{default}")
    return "\n".join(["flags:", *lines])


def _with_config_found(argv: Sequence[str]) -> list[str]:
    """The arguments with `--config=FILE` for a configuration that is given by its name."""
    program, *arguments = argv
    if arguments and not arguments[0].startswith("-"):
        arguments[0] = f"--config={arguments[0]}"
    for i, argument in enumerate(arguments):
        if argument in ("--config", "-config") and i + 1 < len(arguments):
            arguments[i + 1] = _file(arguments[i + 1])
        elif argument.startswith(("--config=", "-config=")):
            arguments[i] = f"--config={_file(argument.partition('=')[2])}"
    return [program, *arguments]


def _file(config: str) -> str:
    """The file of a configuration: one that exists, or that of the package with this name."""
    if Path(config).expanduser().is_file():
        return str(Path(config).expanduser())
    name = config.removeprefix("configs/").removesuffix(".py")
    if name not in names():
        raise InputError(f"--config {config!r} is no file and no configuration; {_choices(name)}")
    return str(_CONFIGS / f"{name}.py")


def _choices(name: str = "") -> str:
    hint = f"{nearest(name, names())} " if name and "mean" in nearest(name, names()) else ""
    return f"{hint}there are {', '.join(names())}"


def _unknown_key(message: str) -> str:
    suggestion = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', message)
    if suggestion:
        return f"configuration key {suggestion[2]!r} is unknown; did you mean {suggestion[1]!r}?"
    return f"unknown configuration key: {message}; configs/default.py lists them"
