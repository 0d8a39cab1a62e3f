"""Errors that are the user's to mend, and how the command line shows them."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Iterable, Iterator


class InputError(ValueError):
    """A wrong argument, file or configuration; the message names it, its value and the fix."""


class TrainingError(RuntimeError):
    """A run that cannot go on, such as one whose loss is no longer finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of an error message: the known name nearest to `name`, or all of them."""
    known = sorted(known)
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}?" if matches else f"choose from {', '.join(known)}"


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turns the errors a user can cause into one line on standard error and an exit status.

    Status 2 for wrong input, 1 for a run that failed, 130 for Ctrl-C. Any other exception is a
    bug of this package and keeps its traceback.
    """
    try:
        yield
        sys.stdout.flush()  # here, where its failure is told like any other
    except InputError as error:
        _exit(2, error)
    except TrainingError as error:
        _exit(1, error)
    except KeyboardInterrupt:
        _exit(130, "interrupted")
    except BrokenPipeError:  # whoever read standard output has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python writes at its end
        raise SystemExit(1) from None


def _exit(status: int, error: object) -> None:
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    raise SystemExit(status) from None
