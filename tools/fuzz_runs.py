"""Runs `jaxdeblur deblur` for `fuzz.py`: a thousand times without a thousand imports.

This process imports everything and never starts JAX's devices, so that it can be forked. Most
commands run one after the other in one child (`_Worker`); those that run beside another, or that a
signal ends, are children of their own, which end as the command ends.
"""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn, Self

import fuzz_folders
import fuzz_pictures
import numpy as np

PLUS = 10
"""Levels of 255 by which the network makes everything brighter."""

NOBODY = 65534
_LIMIT = 120.0  # seconds a command may take
_ASKING = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT}


@dataclasses.dataclass
class End:
    """How a command has ended: its status (negative: killed by that signal), and what it said."""

    status: int
    out: str
    err: str
    signalled: bool = False


class Commands:
    """What runs commands; a context manager.

    Args:
      place: a folder for the network and the cache of compiled programs.
    """

    def __init__(self, place: Path):
        self.model = place / "plus.safetensors"
        # Heard when JAX is imported. Of its own kind of cache any user may read the programs.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place / "programs")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        os.environ["JAXDEBLUR_CONVOLUTIONS"] = "compiler"
        _in_child(lambda: _make_model(self.model))
        _import_all(place / "warm")
        self._worker: _Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._worker:
            self._worker.close()

    def alone(self, case: fuzz_folders.Case) -> End:
        """Runs the command of a case to its end."""
        if self._worker is None:
            self._worker = _Worker(self._warming())
        try:
            return self._worker.run(self._arguments(case), case)
        except EOFError:
            self._worker = None
            return End(-1, "", "Traceback: the process has crashed")

    def start(self, case: fuzz_folders.Case, number: int) -> Child:
        """Starts the command of a case as a process of its own."""
        return Child(self._arguments(case), case, number)

    def _warming(self) -> list[str]:
        """A command that imports what is imported when it is needed: nobody may not."""
        folder = str(self.model.parent / "warm")
        options = ["--overwrite", "--side-by-side", "--compare", folder]
        return ["deblur", "--model", str(self.model), *options, folder]

    def _arguments(self, case: fuzz_folders.Case) -> list[str]:
        return ["deblur", "--model", str(self.model), *case.arguments]


def run(case: fuzz_folders.Case, commands: Commands) -> list[End]:
    """Runs the command of a case in one of several ways; the last end is that of a whole run."""
    kind = case.rng.random()
    if kind < 0.9 or case.nobody:  # who may not import what a new process needs
        return [commands.alone(case)]
    if kind < 0.94:
        children = [commands.start(case, number) for number in range(2)]
        return [child.end() for child in children]
    child = commands.start(case, 0)
    asking = case.rng.choice(sorted(_ASKING))
    child.ask(asking, after=case.rng.uniform(0, 1.0))
    return [child.end(), commands.alone(case)]


class Child:
    """The command as a process of its own."""

    def __init__(self, arguments: list[str], case: fuzz_folders.Case, number: int):
        self._logs = [case.place.parent / f"{name}{number}" for name in ("out", "err")]
        self._asked = False
        signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)  # until the child hears them
        self._pid = _forked(lambda: _become_command(arguments, self._logs))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)

    def ask(self, number: int, after: float) -> None:
        """Sends a signal after some seconds."""
        time.sleep(after)
        self._asked = True
        os.kill(self._pid, number)

    def end(self) -> End:
        """Waits for the end."""
        deadline = time.monotonic() + _LIMIT
        while (ended := os.waitpid(self._pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.005)
        status = os.waitstatus_to_exitcode(ended[1])
        out, err = (log.read_text(errors="replace") for log in self._logs)
        return End(status, out, err, signalled=self._asked)


class _Worker:
    """A process in which commands run one after the other."""

    def __init__(self, warming: list[str]) -> None:
        self._connection, theirs = multiprocessing.Pipe()

        def work() -> None:
            self._connection.close()  # else it would not see that this process has closed it
            _work(theirs, warming)

        self._pid = _forked(work)
        theirs.close()

    def run(self, arguments: list[str], case: fuzz_folders.Case) -> End:
        logs = [case.place.parent / name for name in ("out", "err")]
        self._connection.send((arguments, case.nobody, logs))
        if not self._connection.poll(_LIMIT):
            os.kill(self._pid, signal.SIGKILL)
        status = self._connection.recv()
        return End(status, *(log.read_text(errors="replace") for log in logs))

    def close(self) -> None:
        self._connection.close()
        os.waitpid(self._pid, 0)


def _work(connection: Connection, warming: list[str]) -> None:
    from jaxdeblur import cli
    from jaxdeblur.runtime import startup

    startup.keep_freed_memory = lambda: None  # once in a process's life
    _redirect([Path(os.devnull)] * 2)
    cli.main(warming)
    while True:
        try:
            arguments, nobody, logs = connection.recv()
        except EOFError:
            return
        _redirect(logs)
        status = 0
        os.seteuid(NOBODY if nobody else os.getuid())
        try:
            cli.main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            status = -1
            traceback.print_exc()
        finally:
            os.seteuid(os.getuid())
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(status)


def _become_command(arguments: list[str], logs: list[Path]) -> None:
    from jaxdeblur import cli
    from jaxdeblur.runtime import signals

    _redirect(logs)
    sys.argv = ["jaxdeblur", *arguments]
    signals.end_at_once()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)
    cli.main()


def _redirect(logs: list[Path]) -> None:
    for number, log in enumerate(logs, start=1):
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)


def _forked(function: Callable[[], None]) -> int:
    """Starts a process that runs a function; returns its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _exit_after(function)
    return pid


def _exit_after(function: Callable[[], None]) -> NoReturn:
    status = -1
    try:
        function()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status & 0xFF)


def _in_child(function: Callable[[], None]) -> None:
    if os.waitpid(_forked(function), 0)[1]:
        raise SystemExit("the network of the fuzz run cannot be made")


def _make_model(path: Path) -> None:
    """Writes a network that makes pictures brighter by `PLUS` levels."""
    import jax

    from jaxdeblur import create_model, weights

    module = create_model("atrous_net", num_channels=4, num_blocks=1, zero_init=True)
    params = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 16, 16, 3)))["params"]
    params["difference"]["bias"] = np.full(3, PLUS / 255, np.float32)
    weights.save(path, weights.Deblurrer(module, params, {"channels": 3}))


def _import_all(folder: Path) -> None:
    """Makes a folder with a file of each kind, and imports what the command imports for them."""
    for module in ("cli", "weights", "media.photo", "runtime.progress"):
        importlib.import_module(f"jaxdeblur.{module}")
    from jaxdeblur.cli import _parser
    from jaxdeblur.media import photo

    folder.mkdir()
    _parser()
    rng = random.Random(0)
    for suffix in fuzz_pictures.SUFFIXES:
        path = folder / f"photo{suffix}"
        path.write_bytes(fuzz_pictures.photo(rng, suffix))
        picture = photo.read(path)
        photo.encode(picture, picture.rgb, suffix if suffix != ".gif" else ".png")
    (folder / "video.mp4").write_bytes(fuzz_pictures.video(".mp4"))
