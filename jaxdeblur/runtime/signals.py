"""How a command ends when it is asked to: at once, with nothing half-made left behind.

An exception out of a signal's handler is no way to end everywhere: what a library in C++ imports,
and what the garbage collector calls, loses it, prints it, or ends the process with an abort.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = b"\x1b[?25h\n"  # which a progress bar hides

_unfinished: set[Path] = set()
_interrupted = False


def end_at_once() -> None:
    """Lets Ctrl-C, SIGTERM and SIGHUP end this process, with the status that shells give them.

    A signal that is ignored, as SIGHUP under `nohup`, stays so.
    """
    for number in _ASKING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """As `end_at_once`, for a while."""
    before = {number: signal.getsignal(number) for number in _ASKING}
    end_at_once()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finished() -> None:
    """Says that all is done: that Ctrl-C comes while Python ends does not change how it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def raise_again() -> None:
    """Undoes `end_at_once`: Ctrl-C raises KeyboardInterrupt, and ends the process when repeated.

    What runs for long must call `check` now and then.
    """
    for number in _ASKING:
        if signal.getsignal(number) is _end:
            signal.signal(number, _raise if number == signal.SIGINT else signal.SIG_DFL)


def check() -> None:
    """Raises a KeyboardInterrupt that was lost, as one in the garbage collector's callbacks is."""
    if _interrupted:
        raise KeyboardInterrupt


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[None]:
    """Removes a file or folder if the process is asked to end meanwhile."""
    _unfinished.add(path)
    try:
        yield
    finally:
        _unfinished.discard(path)


def _end(number: int, frame: object) -> NoReturn:
    for path in tuple(_unfinished):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    # Not through `sys.stderr`, which may be in use right now.
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
        if number == signal.SIGINT:
            os.write(2, b"error: interrupted\n")
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    signal.signal(signal.SIGINT, _end)
    if _would_lose_it(frame):
        signal.signal(signal.SIGALRM, _raise)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        return
    raise KeyboardInterrupt


def _would_lose_it(frame: FrameType | None) -> bool:
    """Whether an exception that is raised now would be printed and forgotten."""
    while frame is not None:
        if frame.f_code.co_name in ("_xla_gc_callback", "__del__"):
            return True
        frame = frame.f_back
    return False
