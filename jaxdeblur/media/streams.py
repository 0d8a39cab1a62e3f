"""Photographs that come through standard input or a pipe: read within bounds.

What has no end (`/dev/zero`), never begins (a pipe into which nobody writes) or is no photograph is
refused early, not when the memory is full.
"""

from __future__ import annotations

import os
import select
import time
from typing import BinaryIO

from jaxdeblur.errors import InputError
from jaxdeblur.media import sniffing

LIMIT = 2 << 30
"""The most bytes that are read."""

_CHUNK = 1 << 20  # bytes
_PATIENCE = 5.0  # seconds without anybody who writes into a pipe

_BEGINNING = 8  # bytes that tell whether to read on


def read(file: BinaryIO, name: str, first: bytes = b"") -> bytes:
    """Reads a photograph's file to its end.

    Args:
      file: what it comes from.
      name: what to call it in messages.
      first: bytes that were read before.

    Raises:
      InputError: nothing comes, it begins as no photograph does, or it has more than `LIMIT` bytes.
    """
    data = bytearray(first)
    data += file.read(_BEGINNING)
    if not data:
        raise InputError(f"{name}: is empty")
    if not sniffing.may_be_photo(bytes(data)):
        raise InputError(f"{name}: is no image, or of a format that is not known")
    while chunk := file.read(_CHUNK):
        data += chunk
        if len(data) > LIMIT:
            raise InputError(f"{name}: has more than {LIMIT >> 30} GiB; give it as a file")
    return bytes(data)


def read_pipe(path: str | os.PathLike[str], name: str) -> bytes:
    """Reads a photograph's file from a named pipe, or from that of `<(command)`.

    Raises:
      InputError: as of `read`; nobody writes into it.
      OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # would wait otherwise
    with open(descriptor, "rb") as file:
        first = _first(descriptor, name)
        os.set_blocking(descriptor, True)
        return read(file, name, first)


def _first(descriptor: int, name: str) -> bytes:
    """The first byte, or none if whoever wrote has ended."""
    poll, deadline = select.poll(), time.monotonic() + _PATIENCE
    poll.register(descriptor, select.POLLIN)
    while time.monotonic() < deadline:
        ended = bool(poll.poll(100))  # or there is something
        try:
            first = os.read(descriptor, 1)
        except BlockingIOError:  # somebody is there, who has not written yet
            deadline = time.monotonic() + _PATIENCE
            continue
        if first or ended:
            return first
    raise InputError(f"{name}: is a pipe into which nothing writes")
