"""Compiled programs on disk: those that a killed process or a full disk has damaged do not count.

JAX takes a file of its compilation cache for what it is named, warns each time of one that cannot
be read, and never writes one that exists. Here each has a checksum behind it, of name and content.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat

import jax
from jax._src import compilation_cache
from jax._src.lru_cache import LRUCache

_LENGTH = hashlib.sha256().digest_size


class _Checked(LRUCache):
    def get(self, key: str) -> bytes | None:
        path = self._file(key)
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.stat(path).st_mode) and (value := super().get(key)):
                program, checksum = value[:-_LENGTH], value[-_LENGTH:]
                if checksum == _checksum(key, program):
                    return program
        _remove(path)
        return None

    def put(self, key: str, value: bytes) -> None:
        super().put(key, value + _checksum(key, value))

    def _file(self, key: str) -> str:
        return os.path.join(str(self.path), f"{key}-cache")


def check() -> None:
    """Lets JAX check the programs of its folder, which no other program uses."""

    def cache(path: str) -> tuple[LRUCache, str]:
        size = jax.config.jax_compilation_cache_max_size  # pyright: ignore[reportAttributeAccessIssue]
        return _Checked(path, max_size=size), path

    compilation_cache.get_file_cache = cache


def _checksum(key: str, program: bytes) -> bytes:
    return hashlib.sha256(key.encode() + program).digest()


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
