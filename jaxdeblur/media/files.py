"""Which files to restore, and where the results go."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxdeblur.errors import InputError, printable
from jaxdeblur.media import photo, video
from jaxdeblur.runtime import paths
from jaxdeblur.runtime.folders import files_below

_MARK = ".deblurred"  # in the names of results
_COMPARISON = ".comparison.png"


@dataclasses.dataclass(frozen=True)
class Job:
    """One file to restore.

    Attributes:
      source: the photograph or video.
      target: where the result goes.
      relative: the source's path below the folder that was given, or its name.
    """

    source: Path
    target: Path
    relative: Path

    @property
    def is_video(self) -> bool:
        return video.holds_video(self.source)

    @property
    def comparison(self) -> Path:
        """Where the picture blurred | restored goes: a name of its own for each result's."""
        stem = self.target.stem.removesuffix(_MARK)
        return self.target.with_name(f"{stem}{self.target.suffix}{_COMPARISON}")


def find(
    inputs: Sequence[str], output: str | None, *, frames: bool = False
) -> tuple[list[Job], list[InputError]]:
    """Lists what the inputs hold, in a fixed order.

    Args:
      inputs: files, and folders that are searched recursively. In these, hidden files and results
        of earlier runs are left out.
      output: a folder, below which names and subfolders stay as they are; or, for a single file,
        the result's name. None puts `photo.deblurred.jpg` beside `photo.jpg`.
      frames: results of videos are folders of pictures.

    Returns:
      The jobs, and what is wrong with the files and folders that gave none.

    Raises:
      InputError: `output` is no possible path.
    """
    jobs: list[Job] = []
    problems: list[InputError] = []
    place = None if output is None else _path(output, "-o")
    given = [path for name in inputs if (path := _given(name, problems)) is not None]
    as_file = place is not None and _names_a_file(inputs, given, output or "", frames)
    for path in given:
        if _is_result(path) and len(inputs) > 1:  # as `*.png` names all, the second time
            continue
        for source, relative in _sources(path, place, problems):
            if not as_file and source.is_fifo():
                what = "is a pipe; name the file of its result with -o"
                problems.append(InputError(f"{printable(source)}: {what}"))
                continue
            target = place if place and as_file else _target(source, relative, place, frames)
            jobs.append(Job(source, target, relative))
    originals = {identity: job.source for job in jobs if (identity := _identity(job.source))}
    targets: dict[Path, Path] = {}
    possible = []
    for job in jobs:
        if targets.get(job.target) == job.source:  # given twice
            continue
        try:
            _check(job, targets.get(job.target), originals)
        except InputError as error:
            problems.append(error)
            continue
        targets[job.target] = job.source
        possible.append(job)
    return possible, problems


def _path(text: str, name: str) -> Path:
    if not text:
        raise InputError(f"{name} = '' names nothing; leave it out, or name a file or folder")
    return paths.local(text, name)


def _given(name: str, problems: list[InputError]) -> Path | None:
    """The path of an input; adds to `problems` what cannot be one."""
    try:
        return _path(name, "INPUT")
    except InputError as error:
        problems.append(error)
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    """What is the same of all names of a file, links and hard links; None of no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _sources(
    path: Path, output: Path | None, problems: list[InputError]
) -> list[tuple[Path, Path]]:
    """Files to restore, each with its path below `path`; adds to `problems` what cannot be read."""
    if not _is_dir(path):
        return [(path, Path(path.name))]  # what is missing or unreadable says so when it is read
    known = photo.SUFFIXES + video.SUFFIXES
    away = None if output is None else output.resolve()
    if away and path.resolve() not in away.parents:
        away = None  # the results lie outside
    before = len(problems)

    def unreadable(error: OSError) -> None:
        problems.append(
            InputError(f"{printable(error.filename)}: cannot be read ({error.strerror})")
        )

    found = [
        (file, file.relative_to(path))
        for file in files_below(path, unreadable)
        if file.suffix.lower() in known
        and not any(_is_result(Path(part)) for part in file.relative_to(path).parts)
        and not (away and away in file.resolve().parents)
    ]
    if not found and len(problems) == before:
        what = f"holds no photographs or videos ({', '.join(known)})"
        problems.append(InputError(f"{printable(path)}: {what}"))
    return found


def _is_result(path: Path) -> bool:
    """Whether a name is one that results have: of a file, or of a folder of frames."""
    return path.stem.endswith(_MARK) or path.name.endswith((_MARK, _COMPARISON))


def _is_dir(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _names_a_file(inputs: Sequence[str], given: Sequence[Path], output: str, frames: bool) -> bool:
    """Whether `-o` names the one result, and not a folder."""
    if len(inputs) != 1 or len(given) != 1 or _is_dir(given[0]):
        return False
    if _is_dir(paths.local(output, "-o")) or output.endswith("/"):
        return False
    is_video = video.holds_video(given[0])
    return bool(Path(output).suffix) or (frames and is_video)


def _target(source: Path, relative: Path, output: Path | None, frames: bool) -> Path:
    suffix = source.suffix
    if video.holds_video(source):
        suffix = "" if frames else _container(suffix)
    elif suffix.lower() == ".gif":
        suffix = ".png"  # which holds more colours
    if output is not None:
        return (output / relative).with_suffix(suffix)
    return source.with_name(f"{source.stem}{_MARK}{suffix}")


def _container(suffix: str) -> str:
    """The suffix of a video's result: the source's, or of a container that holds everything."""
    return suffix if suffix.lower() in video.CONTAINERS else ".mkv"


def _check(job: Job, other: Path | None, originals: Mapping[tuple[int, int], Path]) -> None:
    """Raises InputError if the result would be another's, or an input, or has no possible name."""
    source, target = printable(job.source), printable(job.target)
    if other is not None:
        raise InputError(f"{source}: its result {target} is that of {printable(other)} too")
    try:
        status = job.target.stat()
    except FileNotFoundError:  # as a rule
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{source}: {target} cannot be written ({reason})") from error
    original = originals.get((status.st_dev, status.st_ino))
    if original == job.source:
        raise InputError(f"{source}: the output would be the input; give another -o")
    if original is not None:
        raise InputError(
            f"{source}: its result {target} would replace {printable(original)}; give another -o"
        )
