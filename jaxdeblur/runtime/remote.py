"""Workdirs in object storage (`s3://`, `gs://`): a local copy, and what changed sent after it.

Object stores neither append nor rename, which logs and checkpoints live on. So a run works in a
local folder; a checkpoint counts in the store once the object that says so is there.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxdeblur.errors import InputError, TrainingError

_WHOLE = "whole"  # this object in a checkpoint's folder: the rest of it is there
_UNFINISHED = ".orbax-checkpoint-tmp"
_NOT_PULLED = ("tensorboard/", "pictures/")  # a run that goes on only adds to them


def is_remote(path: object) -> bool:
    """Whether a path is a URL such as `s3://bucket/runs/first`."""
    return "://" in str(path)


class Mirror:
    """A local copy of a folder in object storage.

    Args:
      url: of the folder.

    Attributes:
      folder: the copy.

    Raises:
      InputError: no such storage, or the package that reaches it is missing.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        try:
            import fsspec

            self._storage, self._root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            scheme = "gcs" if self.url.startswith("gs") else "s3"
            raise InputError(f"{url}: {error}; pip install 'jaxdeblur[{scheme}]'") from error
        self.folder = Path(tempfile.mkdtemp(prefix="jaxdeblur-"))
        self._sent: dict[str, tuple[int, int]] = {}
        self._sender = concurrent.futures.ThreadPoolExecutor(1)
        self._sending: concurrent.futures.Future[None] | None = None

    def close(self) -> None:
        """Removes the copy."""
        self._sender.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pull(self) -> None:
        """Copies what a run needs to go on: its configuration, log and whole checkpoints.

        Raises:
          InputError: the storage does not answer, or refuses.
        """
        try:
            self._storage.invalidate_cache()
            names = self.names()
            for name in names:
                if name.startswith(_NOT_PULLED) or not _is_whole(name, names):
                    continue
                if name.rpartition("/")[2] == _WHOLE:
                    continue
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._storage.get_file(f"{self._root}/{name}", str(path))
                self._sent[name] = _version(path)
        except _errors() as error:
            raise InputError(f"{self.url}: cannot be read ({_text(error)})") from error

    def push(self, when: Callable[[], None] = lambda: None) -> None:
        """Begins to send what has changed, and to remove checkpoints that are gone.

        Killed at any moment, it leaves every checkpoint whole or not counting, and a log that
        reaches at least as far as the newest one.

        Args:
          when: returns when it is time to begin.

        Raises:
          TrainingError: the last call failed, see `wait`.
        """

        def send() -> None:
            when()
            self._send()

        self.wait()
        self._sending = self._sender.submit(send)

    def wait(self) -> None:
        """Returns when everything is sent.

        Raises:
          TrainingError: the storage does not answer, or refuses.
        """
        sending, self._sending = self._sending, None
        if sending is None:
            return
        try:
            sending.result()
        except _errors() as error:
            if isinstance(error, TrainingError):
                raise
            raise TrainingError(f"{self.url}: cannot be written ({_text(error)})") from error

    def _send(self) -> None:
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        local = {path.relative_to(self.folder).as_posix(): path for path in paths}
        local = {name: path for name, path in local.items() if _UNFINISHED not in name}
        # What says that a checkpoint is whole comes after the log, which then reaches as far.
        for name in sorted(local, key=lambda name: (_step(name) is None, name)):
            version = _version(local[name])
            if self._sent.get(name) != version:
                self._storage.put_file(str(local[name]), f"{self._root}/{name}")
                self._sent[name] = version
        steps = {step for name in local if (step := _step(name)) is not None}
        for step in sorted(steps):
            marker = f"checkpoints/{step}/{_WHOLE}"
            if marker not in self._sent:
                self._storage.pipe_file(f"{self._root}/{marker}", b"")
                self._sent[marker] = (0, 0)
        self._remove_all_but(steps)

    def _remove_all_but(self, steps: set[int]) -> None:
        self._storage.invalidate_cache()
        gone = [name for name in self.names() if _step(name) not in (None, *steps)]
        # What says that a checkpoint is whole goes first.
        for name in sorted(gone, key=lambda name: not name.endswith(f"/{_WHOLE}")):
            self._storage.rm_file(f"{self._root}/{name}")
            self._sent.pop(name, None)

    def names(self) -> list[str]:
        """The files in the storage, by their paths in the folder."""
        return [path.removeprefix(f"{self._root}/") for path in self._storage.find(self._root)]


@contextlib.contextmanager
def copy(url: str) -> Iterator[Path]:
    """Gives a local copy of a workdir, or of one of its checkpoints, for a while.

    Raises:
      InputError: the storage does not answer, or refuses.
    """
    workdir, middle, step = url.rstrip("/").rpartition("/checkpoints/")
    mirror = Mirror(workdir if middle else url)
    try:
        mirror.pull()
        yield mirror.folder / "checkpoints" / step if middle else mirror.folder
    finally:
        mirror.close()


def _step(name: str) -> int | None:
    """The step of the checkpoint that a file belongs to."""
    parts = name.split("/")
    if len(parts) > 2 and parts[0] == "checkpoints" and parts[1].isdecimal():
        return int(parts[1])
    return None


def _is_whole(name: str, names: list[str]) -> bool:
    step = _step(name)
    return step is None or f"checkpoints/{step}/{_WHOLE}" in names


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _errors() -> tuple[type[Exception], ...]:
    """What the packages behind fsspec raise for refusals and lost connections."""
    found: list[Any] = [OSError, RuntimeError, ValueError]
    try:
        from botocore.exceptions import BotoCoreError, ClientError

        found += [BotoCoreError, ClientError]
    except ImportError:
        pass
    return tuple(found)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
