"""Paths as users write them: what no file system can have is told, not raised from inside."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

from jaxdeblur.errors import InputError

# What says that there is nothing.
_MAY_BE_MISSING = (errno.ENOENT, errno.ENOTDIR)


def local(path: str | os.PathLike[str], name: str) -> Path:
    """Returns a path with its `~` replaced by a home folder, unless it is there as it is written.

    Args:
      path: of something that need not exist.
      name: of the argument, for messages.

    Raises:
      InputError: no such user, or a path that no file system takes: too long, a zero byte, links in
        a circle, folders that may not be entered.
    """
    text = os.fspath(path)
    try:
        expanded = Path(path) if os.path.lexists(path) else _expanded(text)
    except RuntimeError as error:
        raise InputError(
            f"{name} = {text!r}: there is no home folder of that name; write the path in full"
        ) from error
    try:
        os.stat(expanded)
    except OSError as error:
        if error.errno in _MAY_BE_MISSING:
            return expanded
        raise InputError(f"{name} = {text!r} cannot be used ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{name} = {text!r} cannot be used ({error})") from error
    return expanded


def _expanded(text: str) -> Path:
    """As a shell expands it: `./~name` is the name of a file, which `Path` forgets."""
    return Path(text).expanduser() if text.startswith("~") else Path(text)


def home() -> Path | None:
    """The user's home folder; None where there is none, as in a container of an unknown user."""
    named = os.environ.get("HOME", "")
    if not os.path.isabs(named):
        try:
            named = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return Path(named) if os.path.isabs(named) else None


def check_text(path: Path, name: str) -> None:
    """Raises InputError unless a path is text; the libraries that save a run take no other."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} = {os.fspath(path)!r} is not UTF-8, which checkpoints need; use another"
        ) from error
