"""Locks on files, which the system releases when the process that holds them ends or is killed.

They hold among the processes of a machine and, as far as the file system knows locks, of others.
Where it knows none, everything goes on without.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


def held(path: Path) -> int | None:
    """Locks a file that exists, until the returned descriptor is closed.

    Args:
      path: of the file; it is not changed.

    Returns:
      The descriptor; None where the file cannot be opened, or its system knows no locks.

    Raises:
      BlockingIOError: another process holds the lock.
    """
    while True:
        descriptor = _opened(path)
        if descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            if error.errno == errno.EINTR:
                continue
            return None
        os.close(descriptor)  # the file was replaced meanwhile


@contextlib.contextmanager
def waiting_for(path: Path) -> Iterator[None]:
    """Lets one process at a time change a file that is replaced when it changes.

    What is locked is a hidden file beside it, which is there only as long as somebody needs it.

    Args:
      path: of the file, which need not exist.
    """
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    beside = path.with_name(f".jaxdeblur-{digest}.lock")  # fits where a long name has no room left
    descriptor = _made_and_locked(beside)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                beside.unlink()  # while it is locked: who waits for it sees that it is gone
            os.close(descriptor)


def _made_and_locked(path: Path) -> int | None:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return None  # what is to be written beside it tells why
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _opened(path: Path) -> int | None:
    # Network file systems lock for writing only what is open for writing.
    for mode in (os.O_RDWR, os.O_RDONLY):
        with contextlib.suppress(OSError):
            return os.open(path, mode | os.O_CLOEXEC | os.O_NONBLOCK)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still names the file that a descriptor has open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
