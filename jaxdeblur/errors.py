"""Errors that are the user's to mend, and how the command line shows them."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator


class InputError(ValueError):
    """A wrong argument, file or configuration; the message names it, its value and the fix.

    Attributes:
      common: whether every process of the job raises it, so that one of them is to tell it.
    """

    common = False


class TrainingError(RuntimeError):
    """A run that cannot go on, such as one whose loss is no longer finite.

    Attributes:
      common: see `InputError`.
    """

    common = False


class Preempted(Exception):  # noqa: N818 (no error: the run was asked to end, and did)
    """A run that was asked to end, and whose state is saved."""

    common = True


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of an error message: the known name nearest to `name`, or all of them."""
    known = sorted(known)
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}?" if matches else f"choose from {', '.join(known)}"


# Control characters, ends of lines, and marks that turn the direction of the text after them: what
# moves the cursor of a terminal, or hides a part of a name.
_UNSEEN = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F))
_ESCAPES = {
    code: ascii(chr(code))[1:-1]
    for code in (*_UNSEEN, *range(0x2066, 0x206A), *range(0xD800, 0xE000))
}


def printable(text: object) -> str:
    """Returns a text in which nothing acts on a terminal: `\\n` stands for the end of a line."""
    return str(text).translate(_ESCAPES)


def one_line(text: object) -> str:
    """Returns a text of several lines as one, in which nothing acts on a terminal."""
    return printable(re.sub(r"\s*[\r\n]\s*", " ", str(text).strip()))


# What comes with the package itself; everything else comes with its extra `train`.
_BASE = (
    *("av", "dm_pix", "flax", "imagecodecs", "jax", "numpy", "orbax", "PIL", "pillow_heif"),
    *("platformdirs", "rich", "safetensors", "scipy", "tifffile"),
)


class MissingPackageError(ModuleNotFoundError):
    """A package that is not installed; the message has the command that installs it."""


@contextlib.contextmanager
def naming_extra() -> Iterator[None]:
    """Says of a package that is missing which command installs it.

    Raises:
      MissingPackageError: an import inside failed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if isinstance(error, MissingPackageError) or package in ("", "jaxdeblur"):
            raise
        extra = "" if package in _BASE else "[train]"
        raise MissingPackageError(
            f"the package {package} is missing; pip install 'jaxdeblur{extra}'", name=error.name
        ) from None


# What a user can cause, and is told in a line.
TOLD = (InputError, TrainingError, Preempted, MissingPackageError, KeyboardInterrupt)


@contextlib.contextmanager
def reported(preempted_status: int = 0) -> Iterator[None]:
    """Turns the errors a user can cause into one line on standard error and an exit status.

    Status 2 for wrong input or a missing package, 1 for a run that failed or told what nobody could
    read, 130 for Ctrl-C. Any other exception is a bug of this package and keeps its traceback.

    Args:
      preempted_status: of a run that was asked to end and can go on.
    """
    prepare_streams()
    try:
        with naming_extra():
            yield
    except TOLD as error:
        tell(error)
        raise SystemExit(exit_status(error, preempted_status)) from None
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(1) from None
    try:
        if sys.stdout:
            sys.stdout.flush()  # here, where its failure is told like any other
    except OSError as error:
        _drop_output()
        if not isinstance(error, BrokenPipeError):
            tell(InputError(f"standard output cannot be written ({error.strerror})"))
        raise SystemExit(1) from None


def prepare_streams() -> None:
    """Makes the standard streams take every name of a file, and messages cost nothing.

    A name that a stream's encoding does not have is told with escapes. The place of a stream that
    is closed is taken, before a file takes it, into which a library would then write. What standard
    error does not take, as of a terminal that was closed or a full disk, is lost without harm.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")
    if sys.stderr is sys.__stderr__:  # nobody has put another in its place
        encoding = getattr(sys.stderr, "encoding", "utf-8")  # there is none where it was closed
        raw = io.BufferedWriter(_Unheard(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True)


class _Unheard(io.FileIO):
    """A stream that nobody may read: there is nobody to be told that it fails."""

    def write(self, data) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def _drop_output() -> None:
    """Ends the output to somebody who has had enough, as `head` has, or to a full disk.

    Python would try again at its end.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def tell(error: BaseException, teller: str = "") -> None:
    """Prints an error that `reported` names as one line on standard error.

    Args:
      error: the error.
      teller: what to begin the message with, such as "process 3: ".
    """
    kind = "" if isinstance(error, Preempted) else "error: "
    message = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
    print(kind + teller + one_line(message), file=sys.stderr)


def exit_status(error: BaseException, preempted_status: int = 0) -> int:
    """The exit status of a process that ends with an error that `reported` names."""
    match error:
        case Preempted():
            return preempted_status
        case KeyboardInterrupt():
            return 130
        case TrainingError():
            return 1
    return 2
