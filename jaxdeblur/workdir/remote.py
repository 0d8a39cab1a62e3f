"""Workdirs in object storage (`s3://`, `gs://`): a local copy, and what changed sent after it.

Object stores neither append nor rename, which logs and checkpoints live on. So a run works in a
local folder; a checkpoint counts in the store once the object that says so is there.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import logging
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxdeblur.errors import InputError, TrainingError
from jaxdeblur.runtime import signals
from jaxdeblur.workdir.folders import step_of

_log = logging.getLogger(__name__)

_WHOLE = "whole"  # this object in a checkpoint's folder: the rest of it is there
_UNFINISHED = ".orbax-checkpoint-tmp"
_TRIAL = ".jaxdeblur-trial-"  # begins the name of an object that was written for a moment
_LONGEST = 255  # bytes of a file's name
_EXTRAS = {"s3": "s3", "gs": "gcs"}  # what a scheme needs installed
_THEIRS = {  # errors that are none of Python's own
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "gcsfs.retry": ("HttpError",),
}
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
        scheme = _scheme(url)
        try:
            import fsspec

            self._storage, self._root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            extra = _EXTRAS[scheme]
            raise InputError(f"{url}: {error}; pip install 'jaxdeblur[{extra}]'") from error
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="jaxdeblur-"))
        except OSError as error:
            raise InputError(
                f"{url}: there is no folder for its local copy ({error.strerror or error}); name "
                "one with the environment variable TMPDIR"
            ) from error
        self._sent: dict[str, tuple[int, int]] = {}
        self._pushed = self._kept = False
        self._sender = concurrent.futures.ThreadPoolExecutor(1)
        self._sending: concurrent.futures.Future[None] | None = None

    def close(self) -> None:
        """Removes the copy, unless it holds what could not be sent: then says where it is."""
        self._sender.shutdown()
        if self._pushed and not self._kept and self._unsent():
            self._kept = True
            _log.warning("%s: what was not sent is kept in %s", self.url, self.folder)
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def pull(self, *, writable: bool = True) -> None:
        """Copies what a run needs to go on: its configuration, log and whole checkpoints.

        Args:
          writable: whether to try, before a run spends hours, that its results can be sent.

        Raises:
          InputError: the storage does not answer, or refuses, or holds what has no place in a
            folder.
        """
        with self._refusing("cannot be read"):
            self._storage.invalidate_cache()
            names = self.names()
            _check_names(self.url, names)
            for name in names:
                if name.startswith(_NOT_PULLED) or not _is_whole(name, names):
                    continue
                if name.rpartition("/")[2] == _WHOLE or name.startswith(_TRIAL):
                    continue
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._storage.get_file(f"{self._root}/{name}", str(path))
                self._sent[name] = _version(path)
        if writable:
            self.try_writing()

    def try_writing(self) -> None:
        """Writes a small object, and removes it.

        Raises:
          InputError: the storage does not answer, or refuses.
        """
        trial = f"{self._root}/{_TRIAL}{secrets.token_hex(8)}"
        with self._refusing("cannot be written"):
            self._storage.pipe_file(trial, b"jaxdeblur")
        with self._refusing("nothing can be removed there, as old checkpoints must be"):
            self._storage.rm_file(trial)

    @contextlib.contextmanager
    def _refusing(self, what: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except _errors() as error:
            raise InputError(f"{self.url}: {what} ({_text(error)})") from error

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
        self._pushed = True
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
            self._kept = True
            raise TrainingError(
                f"{self.url}: cannot be written ({_text(error)}); what was not sent is kept in "
                f"{self.folder}"
            ) from error

    def _local(self) -> dict[str, Path]:
        """What is to be in the storage: the files of the copy, by their names there."""
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        local = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {name: path for name, path in local.items() if _UNFINISHED not in name}

    def _unsent(self) -> bool:
        return any(self._sent.get(name) != _version(path) for name, path in self._local().items())

    def _send(self) -> None:
        local = self._local()
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
        found = self._storage.find(self._root)
        # What ends so was made by a web page, to show a folder where there is no file.
        names = [path.removeprefix(f"{self._root}/") for path in found if not path.endswith("/")]
        return [name for name in names if name != self._root]


@contextlib.contextmanager
def copy(url: str) -> Iterator[Path]:
    """Gives a local copy of a workdir, or of one of its checkpoints, for a while.

    Raises:
      InputError: the storage does not answer, or refuses.
    """
    _scheme(url)
    workdir, middle, step = url.rstrip("/").rpartition("/checkpoints/")
    mirror = Mirror(workdir if middle else url)
    with contextlib.closing(mirror), signals.unfinished(mirror.folder):
        mirror.pull(writable=False)
        yield mirror.folder / "checkpoints" / step if middle else mirror.folder


def _scheme(url: str) -> str:
    """The scheme of a URL of a folder in object storage; refuses all others."""
    scheme, _, rest = url.partition("://")
    if scheme not in _EXTRAS or "::" in rest:
        raise InputError(
            f"{url}: runs can be in s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or a folder"
        )
    bucket, _, folder = rest.rstrip("/").partition("/")
    if not bucket or _misplaced(bucket) or (folder and _misplaced(folder)):
        raise InputError(
            f"{url}: names no folder of a bucket, such as {scheme}://BUCKET/runs/first"
        )
    return scheme


def _check_names(url: str, names: list[str]) -> None:
    """Refuses names of objects that are not those of files in a folder, before any is written."""
    files = set(names)
    for name in names:
        folders = (name[:place] for place, letter in enumerate(name) if letter == "/")
        if _misplaced(name):
            problem = "is no name of a file in a folder"
        elif not files.isdisjoint(folders):
            problem = "is below another object, and a folder cannot be a file"
        else:
            continue
        raise InputError(f"{url}: the object {name!r} {problem}; remove it, or use another workdir")


def _misplaced(name: str) -> bool:
    """Whether a name, taken for a path, leads elsewhere or nowhere."""
    parts = name.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or "\\" in name or "\0" in name:
        return True
    return any(len(part.encode(errors="replace")) > _LONGEST for part in parts)


def _step(name: str) -> int | None:
    """The step of the checkpoint that a file belongs to."""
    parts = name.split("/")
    return step_of(parts[1]) if len(parts) > 2 and parts[0] == "checkpoints" else None


def _is_whole(name: str, names: list[str]) -> bool:
    step = _step(name)
    return step is None or f"checkpoints/{step}/{_WHOLE}" in names


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _errors() -> tuple[type[Exception], ...]:
    """What the packages behind fsspec raise for refusals and lost connections."""
    found: list[Any] = [OSError, RuntimeError, ValueError]
    for module, names in _THEIRS.items():
        with contextlib.suppress(ImportError, AttributeError):
            found += [getattr(importlib.import_module(module), name) for name in names]
    return tuple(found)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
