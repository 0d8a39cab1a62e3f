"""Files from the network, whole and checked; an interrupted download goes on."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from jaxdeblur.errors import InputError

# The standard library's client, not pooch, which begins an interrupted file anew.

_TIMEOUT = 30  # seconds without a connection or a byte
_CHUNK = 1 << 18  # bytes

Progress = Callable[[int, int], None]


class DownloadError(InputError):
    """A file that no address gave; the message names the hosts and why."""


class _Failed(Exception):  # noqa: N818 (of one address: the next one may serve)
    pass


def download(
    addresses: Sequence[str],
    target: Path,
    progress: Progress,
    *,
    size: int | None = None,
    sha256: str | None = None,
) -> str:
    """Downloads a file, or what is missing of it after an interrupted call.

    Until it is whole and checked, what has come is in a `.part` file beside the target.

    Args:
      addresses: of the file, the one to try first at the front.
      target: the file; its folder must exist. If it is there, whole and right, nothing is sent for.
      progress: called with the bytes that are there and those of the whole file.
      size: what the file must have, in bytes; anything if None.
      sha256: what the file must have; anything if None.

    Returns:
      The file's SHA-256.

    Raises:
      DownloadError: no address gave the file.
      InputError: the file cannot be written.
    """
    failures = []
    with _writing(target):
        if target.is_file():
            found = digest(target)
            if sha256 in (None, found):
                return found
            target.unlink()
        for address in addresses:
            try:
                _bring_part(address, target, size, progress)
                return _accept_part(target, sha256)
            except _Failed as failure:
                failures.append(f"{urlsplit(address).netloc}: {failure}")
    raise DownloadError(f"{target.name}: {'; '.join(failures)}")


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file.

    Raises:
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Tells errors of the disk; those of the network are `_Failed` by then."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error


def _left(target: Path, size: int | None) -> tuple[int | None, int]:
    """Bytes of the whole file, None if unknown, and of the part of it that is there."""
    found = size, 0
    for length, part in _parts(target).items():
        if size in (None, length) and not found[1]:
            found = length, part.stat().st_size
        else:
            part.unlink()
    return found


def _parts(target: Path) -> dict[int, Path]:
    """What has come of a file, by the length that it is to have."""
    named = re.compile(re.escape(target.name) + r"\.([0-9]{1,18})\.part")
    found = ((named.fullmatch(path.name), path) for path in sorted(target.parent.iterdir()))
    return {int(match[1]): path for match, path in found if match and path.is_file()}


def _part(target: Path, total: int) -> Path:
    # With the length in its name, so that a file that has changed is begun anew.
    return target.with_name(f"{target.name}.{total}.part")


def _bring_part(address: str, target: Path, size: int | None, progress: Progress) -> None:
    """Completes the part; an address is asked again as long as each time more has come."""
    while True:
        before = _left(target, size)[1]
        try:
            _transfer(address, target, size, progress)
            return
        except _Failed:
            if _left(target, size)[1] <= before:
                raise


def _transfer(address: str, target: Path, size: int | None, progress: Progress) -> None:
    known, there = _left(target, size)
    if there == known:
        return
    response, there = _ask(address, there, known or 0)
    with response:
        total = size if response.length is None else there + response.length
        if total is None:
            raise _Failed("does not tell how long the file is")
        if size not in (None, total):
            raise _Failed(f"has {total:,} bytes, not {size:,}")
        if not there:
            for part in _parts(target).values():
                part.unlink()
        with _part(target, total).open("ab") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                there += len(chunk)
                if there > total:
                    raise _Failed(f"sends more than {total:,} bytes")
                progress(there, total)
    if there < total:
        raise _Failed(f"broke off after {there:,} of {total:,} bytes")


def _ask(address: str, start: int, total: int = 0) -> tuple[http.client.HTTPResponse, int]:
    """Returns the answer, and where in the file it begins.

    That is at `start` if the file still has `total` bytes and the server gives parts, else at 0.
    """
    headers = {"User-Agent": "jaxdeblur"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(address, headers=headers)
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if start and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _ask(address, start=0)
        raise _Failed(f"HTTP {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(_reason(error)) from error
    if response.status != http.HTTPStatus.PARTIAL_CONTENT or not start:
        return response, 0
    if str(response.headers["Content-Range"]).endswith(f" {start}-{total - 1}/{total}"):
        return response, start
    response.close()
    return _ask(address, start=0)


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(_reason(error)) from error


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)  # of an error of `urllib`
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _accept_part(target: Path, sha256: str | None) -> str:
    """Makes the part the file if its checksum is right, else removes it."""
    (part,) = _parts(target).values()
    found = digest(part)
    if sha256 not in (None, found):
        part.unlink()
        raise _Failed(f"sent wrong bytes: their sha256 is {found}")
    os.replace(part, target)
    return found
