"""Files of weights from elsewhere, opened with care: what they say of themselves is not trusted."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from jaxdeblur.errors import InputError

# What a file may grow to, in sizes of its own: weights hardly compress, bombs do.
_MOST_GROWTH = 10


def head(path: Path) -> bytes:
    """Returns the first bytes of a file, by which its kind is known.

    Raises:
      InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise InputError(f"path = {str(path)!r} cannot be read ({error.strerror})") from error


def is_safetensors(start: bytes) -> bool:
    """Whether a file with these first bytes is one: the length of its header, then JSON."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= 100_000_000


@contextlib.contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip file, for reading its members inside.

    Raises:
      InputError: it is not whole, what is read of it is damaged, or it would grow beyond reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_growth(path, sum(member.file_size for member in archive.infolist()))
            yield archive
    except InputError:
        raise
    except Exception as error:  # a damaged file raises whatever it likes, of zipfile or its reader
        raise InputError(
            f"path = {str(path)!r} is not a whole file of weights ({error}); download it again"
        ) from error


def check_growth(path: Path, size: int) -> None:
    """Raises InputError if what a file holds, `size` in bytes, is far more than the file."""
    if size > _MOST_GROWTH * (stored := path.stat().st_size):
        raise InputError(
            f"path = {str(path)!r} would grow from {stored:,} to {size:,} bytes, "
            "which no weights do; download it again from where its authors offer it"
        )
