"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxdeblur.errors import InputError, printable
from jaxdeblur.runtime import signals

_PREFIX = ".jaxdeblur-"  # of the names of files in the making


class ExistsError(InputError):
    """A file that is there, and is not to be replaced."""


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    like: str | os.PathLike[str] | None = None,
) -> Iterator[Path]:
    """Gives an empty, hidden file beside a file, to be written, which then becomes the file.

    Args:
      path: of the file; its folder must exist.
      overwrite: whether to replace a file that exists.
      like: a file whose permissions the file is to have; by default those of any new file.

    Raises:
      ExistsError: the file exists, perhaps since a moment ago.
      InputError: the file cannot be written. After this and any other error what was there is as
        it was, and nothing is left behind.
    """
    name = printable(os.fspath(path))
    target = check_free(path, overwrite=overwrite)
    try:
        with _in_the_making(target) as partial:
            mode = None if like is None else _mode(like)
            if mode is not None:
                partial.chmod(mode | stat.S_IRUSR | stat.S_IWUSR)  # it is still to be written
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            if mode is not None:
                partial.chmod(mode)
            if overwrite:
                os.replace(partial, target)
            else:
                _move_to_free_name(partial, target)
    except FileExistsError:
        raise _exists(name) from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{name}: cannot be written ({error.strerror or error})") from error


def check_free(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Returns the file that `replacing` would write: of a link to be replaced, the one it names.

    Raises:
      ExistsError: the file exists, and is not to be overwritten.
      InputError: there is no folder for it, or something else in its place.
    """
    if "\0" in os.fspath(path):
        raise InputError(f"{os.fspath(path)!r}: cannot be written; no name may hold a zero byte")
    name = printable(os.fspath(path))
    target = Path(os.path.realpath(path) if overwrite else path)
    if not os.path.isdir(target.parent):
        raise InputError(f"{name}: its folder does not exist; make it first")
    if os.path.exists(target) and not os.path.isfile(target):
        raise InputError(f"{name}: is not a file; give another name")
    if not overwrite and os.path.lexists(target):
        # Asked in this order, since another process may make the file between the questions.
        if os.path.islink(target) and not os.path.exists(target):
            what = "is a link that leads nowhere; give --overwrite or another name"
            raise InputError(f"{name}: {what}")
        raise _exists(name)
    return target


def remove_leftovers(folder: Path) -> None:
    """Removes from a folder what killed processes had in the making.

    A file that a process still writes is locked, on this machine and, as far as the file system
    knows locks, on others. Where it knows none, everything stays.
    """
    for partial in folder.glob(f"{_PREFIX}*.part*"):
        with contextlib.suppress(OSError), partial.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


@contextlib.contextmanager
def _in_the_making(target: Path) -> Iterator[Path]:
    """A new file beside another, locked while it is written, and removed if it is left over."""
    partial = target.with_name(f"{_PREFIX}{secrets.token_hex(8)}.part{target.suffix}")
    with signals.unfinished(partial):
        file = _made_and_locked(partial)
        try:
            yield partial
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
            file.close()


def _made_and_locked(partial: Path) -> BinaryIO:
    while True:
        file = partial.open("xb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # before it was locked, it was taken for one that is left over


def _exists(name: str) -> ExistsError:
    return ExistsError(f"{name}: exists; give --overwrite or another name")


def _mode(path: str | os.PathLike[str]) -> int | None:
    """The permissions of a file; None of a pipe, which are those of whoever made it."""
    status = os.stat(path)
    return stat.S_IMODE(status.st_mode) & 0o777 if stat.S_ISREG(status.st_mode) else None


def _move_to_free_name(partial: Path, target: Path) -> None:
    try:
        os.link(partial, target)  # unlike a renaming, this fails if `target` exists
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(target):
            raise FileExistsError from None
        os.rename(partial, target)
