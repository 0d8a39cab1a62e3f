"""Files of weights from elsewhere, opened with care: what they say of themselves is not trusted."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from jaxdeblur.errors import InputError

# What a file may grow to, in sizes of its own: weights hardly compress, bombs do.
_MOST_GROWTH = 10
_PIECE = 2**20  # bytes


def head(path: Path) -> bytes:
    """Returns the first bytes of a file, by which its kind is known.

    Raises:
      InputError: it cannot be read, or is a device or a pipe, which may never end.
    """
    return read(path, 512)


def read(path: Path, most: int) -> bytes:
    """Returns the first bytes of a file, as many as `most`.

    Raises:
      InputError: see `head`.
    """
    try:
        # Opening a pipe would wait for somebody who writes to it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"path = {str(path)!r} is no file; copy what it gives to one")
            return file.read(min(most, status.st_size))  # for which memory is taken beforehand
    except InputError:
        raise
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"path = {str(path)!r} cannot be read ({error})") from error
    except OSError as error:
        raise InputError(f"path = {str(path)!r} cannot be read ({error.strerror})") from error


def is_safetensors(start: bytes) -> bool:
    """Whether a file with these first bytes is one: the length of its header, then JSON."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= 100_000_000


@contextlib.contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip file, for reading its members inside, with `member`.

    Raises:
      InputError: it is not whole, what is read of it is damaged, or it would grow beyond reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise InputError(f"path = {str(path)!r} has two members of one name")
            check_growth(path, sum(member.file_size for member in archive.infolist()))
            yield archive
    except InputError:
        raise
    except Exception as error:  # a damaged file raises whatever it likes, of zipfile or its reader
        raise InputError(
            f"path = {str(path)!r} is not a whole file of weights ({error}); download it again"
        ) from error


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Reads a member of a zip file, piece by piece: its true size may be another than it says.

    Raises:
      KeyError, ValueError: there is none, or it is not stored as weights are.
    """
    kind = archive.getinfo(name).compress_type
    if kind not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that no weights are")
    whole = io.BytesIO()
    with archive.open(name) as file:
        while piece := file.read(_PIECE):
            whole.write(piece)
    return whole.getvalue()


def check_growth(path: Path, size: int) -> None:
    """Raises InputError if what a file holds, `size` in bytes, is far more than the file."""
    if size > _MOST_GROWTH * (stored := path.stat().st_size):
        raise InputError(
            f"path = {str(path)!r} would grow from {stored:,} to {size:,} bytes, "
            "which no weights do; download it again from where its authors offer it"
        )
