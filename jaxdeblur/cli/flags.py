"""The command lines of `train` and `eval`: a configuration, its keys as flags, and a few more."""

from __future__ import annotations

import contextlib
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags, logging

from jaxdeblur.errors import InputError, nearest, reported
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
    _define_cluster(values)
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
        values.config.lock()
    except AttributeError as error:  # a key that the locked ConfigDict does not have
        raise InputError(_unknown_key(str(error))) from error
    except (flags.Error, TypeError, OSError) as error:
        raise InputError(error) from error
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; flags begin with --")
    return values


@contextlib.contextmanager
def joined(values: flags.FlagValues, preempted_status: int = 0) -> Iterator[None]:
    """`cluster.joined` as the command line says."""
    with reported():
        launch = cluster.choose(
            values.distributed, values.coordinator_address, values.num_processes, values.process_id
        )
        if launch is None and (text := cluster.remark()):
            print("warning:", text, file=sys.stderr)
    with cluster.joined(launch, preempted_status, values.initialization_timeout):
        yield


def names() -> list[str]:
    """The configurations that the package has."""
    files = sorted(_CONFIGS.glob("*.py"))
    return [file.stem for file in files if "def get_config(" in file.read_text()]


def _define_cluster(values: flags.FlagValues) -> None:
    """Defines the flags that say how the processes of a command find each other."""
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ["auto", "on", "off"],
        "Join other processes: auto, if the environment tells of some; on, as JAX finds them.",
        flag_values=values,
    )
    flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.", flag_values=values)
    flags.DEFINE_integer(
        "num_processes", None, "Number of processes.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "process_id", None, "Number of this process.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer(
        "initialization_timeout",
        300,
        "Seconds to wait for all processes to be there.",
        flag_values=values,
    )


def _help(values: flags.FlagValues) -> str:
    """A line for each flag, less the two that absl brings."""
    lines = ["  --config.KEY=VALUE        Replace a value of the configuration."]
    for name in sorted(set(values) - {"flagfile", "undefok"}):
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
        return _checked(str(Path(config).expanduser()))
    name = config.removeprefix("configs/").removesuffix(".py")
    if name not in names():
        raise InputError(f"--config {config!r} is no file and no configuration; {_choices(name)}")
    return str(_CONFIGS / f"{name}.py")


def _checked(file: str) -> str:
    """The file, whose `get_config` has been tried."""
    from ml_collections import ConfigDict

    try:
        config = runpy.run_path(file)["get_config"]()
    except (Exception, SystemExit) as error:  # whatever the code of a user raises
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(f"--config {file!r}{_line_of(error, file)}: {what}; {_NEEDED}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"--config {file!r}: get_config() returns {type(config).__name__}; {_NEEDED}"
        )
    return file


_NEEDED = "it needs a function get_config() that returns a ConfigDict, as configs/default.py has it"


def _line_of(error: BaseException, file: str) -> str:
    """Where in a file, or in which module that it imports, an error arose, in words."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        where = f", line {error.lineno}"
        return where if error.filename in (None, file) else f" imports {error.filename}{where[1:]}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""


def _choices(name: str = "") -> str:
    """The end of an error message: the name that is nearest, if one is near, and all names."""
    told, everything = nearest(name, names()), f"choose from {', '.join(names())}"
    return told if told == everything else f"{told} {everything}"


def _unknown_key(message: str) -> str:
    suggestion = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', message)
    if suggestion:
        return f"configuration key {suggestion[2]!r} is unknown; did you mean {suggestion[1]!r}?"
    return f"unknown configuration key: {message}; configs/default.py lists them"
