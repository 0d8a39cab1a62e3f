"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxdeblur.errors import InputError

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
    name = os.fspath(path)
    # The file that a link names is replaced, not the link.
    target = Path(os.path.realpath(path) if overwrite and "\0" not in name else path)
    try:
        _check_free(target, name, overwrite)
        with _in_the_making(target) as partial:
            if like is not None:
                shutil.copymode(like, partial)
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            if overwrite:
                os.replace(partial, target)
            else:
                _move_to_free_name(partial, target)
    except FileExistsError:
        raise ExistsError(f"{name}: exists; give --overwrite or another name") from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{name}: cannot be written ({error.strerror or error})") from error


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
    file = partial.open("xb")
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # In between it may have been taken for one that is left over.
        partial.touch()
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
        file.close()


def _check_free(target: Path, name: str, overwrite: bool) -> None:
    if "\0" in name:
        raise InputError(f"{name!r}: cannot be written; no name may hold a zero byte")
    if not target.parent.is_dir():
        raise InputError(f"{name}: its folder does not exist; make it first")
    if target.exists() and not target.is_file():
        raise InputError(f"{name}: is not a file; give another name")
    if not overwrite and os.path.lexists(target):
        raise FileExistsError


def _move_to_free_name(partial: Path, target: Path) -> None:
    try:
        os.link(partial, target)  # unlike a renaming, this fails if `target` exists
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(target):
            raise FileExistsError from None
        os.rename(partial, target)
