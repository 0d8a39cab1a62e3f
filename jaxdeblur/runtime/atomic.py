"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from jaxdeblur.errors import InputError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Gives a hidden path beside a file, to be written, which then becomes the file.

    Args:
      path: of the file; its folder must exist.
      overwrite: whether to replace a file that exists.

    Raises:
      InputError: the file exists or cannot be written. After this and any other error what was
        there is as it was, and nothing is left behind.
    """
    name = os.fspath(path)
    # The file that a link names is replaced, not the link.
    target = Path(os.path.realpath(path) if overwrite and "\0" not in name else path)
    partial = target.with_name(f".jaxdeblur-{secrets.token_hex(8)}.part{target.suffix}")
    try:
        _check_free(target, name, overwrite)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            os.replace(partial, target)
        else:
            _move_to_free_name(partial, target)
    except FileExistsError:
        raise InputError(f"{name}: exists; give --overwrite or another name") from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{name}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.unlink(partial)


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
