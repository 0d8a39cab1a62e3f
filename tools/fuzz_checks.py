"""What has to be so after a command of `fuzz.py`; files are read with Pillow and PyAV alone."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import stat
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pillow_heif
from fuzz_folders import Case, Fate
from fuzz_runs import PLUS, End
from PIL import Image

from jaxdeblur.errors import printable

pillow_heif.register_heif_opener()

_PHOTOS = (".png", ".jpg", ".jpeg", ".tif", ".webp", ".bmp", ".avif", ".heic")
_VIDEOS = (".mp4", ".mkv", ".mov")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is at a path: for files with a hash of the content, for links with where they lead."""

    kind: int
    content: str
    changed: int


def snapshot(place: Path) -> dict[Path, Entry]:
    """All that lies below a folder."""
    found = {}
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            content = ""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            changed = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
            found[path] = Entry(status.st_mode, content, changed)
    return found


def problems(
    case: Case, ends: list[End], before: dict[Path, Entry], after: dict[Path, Entry]
) -> list[str]:
    """What is wrong after the commands of a case, the last of which came to its end."""
    found = [problem for end in ends for problem in _of_an_end(end)]
    found += _of_originals(case, before, after)
    if ends[-1].status not in (0, 1):
        return [*found, f"ended with {ends[-1].status}: {ends[-1].err[-400:]}"]
    found += _of_new_files(before, after)
    whole = [end for end in ends if not end.signalled]
    found += _of_lines(case, whole)
    found += _of_sources(case, whole, before)
    return found


def _of_an_end(end: End) -> list[str]:
    found = []
    for word in ("Traceback", "Exception ignored", "Warning:", "Fatal Python"):
        if word in end.err or word in end.out:
            found.append(f"{word}: {end.err[-800:]}")
    errors = _errors(end)
    expected = {1, 2} if errors else {0}
    if end.signalled:
        expected |= {0, 1, 2, -9, 130, 143}
    if end.status not in expected:
        found.append(f"status {end.status} with {len(errors)} errors told: {end.err[-400:]}")
    return found


def _errors(end: End) -> list[str]:
    return [line for line in end.err.splitlines() if line.startswith("error: ")]


def _of_originals(case: Case, before: dict[Path, Entry], after: dict[Path, Entry]) -> list[str]:
    """Nothing that was there has changed, but results that may be replaced, and leftovers."""
    found = []
    for path, entry in before.items():
        leftover = path.name.startswith(".jaxdeblur-")
        replaced = path in case.results and case.has("--overwrite") and path in after
        if after.get(path) != entry and not (leftover and path not in after) and not replaced:
            found.append(f"changed: {str(path)!r}, from {entry} to {after.get(path)}")
    return found


def _of_new_files(before: dict[Path, Entry], after: dict[Path, Entry]) -> list[str]:
    found = []
    for path in after.keys() - before.keys():
        if path.name.startswith(".jaxdeblur-"):
            found.append(f"left behind: {str(path)!r}")
        elif stat.S_ISREG(after[path].kind) and (problem := _unreadable(path)):
            found.append(f"not whole: {str(path)!r}, {problem}")
    return found


def _unreadable(path: Path) -> str:
    """Why a result cannot be decoded."""
    try:
        if path.suffix.lower() in _VIDEOS:
            with av.open(str(path)) as container:
                frames = len(list(container.decode(video=0)))
            return "" if frames == 3 else f"{frames} frames"
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # of whatever decoder
        return f"{type(error).__name__}: {error}"
    return ""


def _of_lines(case: Case, ends: list[End]) -> list[str]:
    """Every problem that is told names a file."""
    names = {printable(path) for path in (*case.sources, *case.inputs, case.output or case.given)}
    names |= {repr(str(path))[1:-1] for path in (*case.sources, *case.inputs)}
    names |= {printable(folder) for path in case.sources for folder in path.parents}
    return [
        f"names no file: {line!r}"
        for end in ends
        for line in _errors(end)
        if not any(name in line for name in names)
    ]


def _of_sources(case: Case, ends: list[End], before: dict[Path, Entry]) -> list[str]:
    """What the command comes to has its result or is told, and sound files have theirs."""
    found = []
    errors = [line for end in ends for line in _errors(end)]
    jobs = [(path, _target(case, path, folder, before)) for path, folder in sorted(_reached(case))]
    counts = Counter(target for _, target in jobs)
    hindered = {
        path
        for path, target in jobs
        if counts[target] > 1 or not _possible(case, path, target, before)
    }
    for path, target in jobs:
        fate, lines = case.sources[path], [line for line in errors if _names(line, path)]
        left = target in before and not case.has("--overwrite")  # the source is not even read
        if fate is Fate.TOLD and not lines and not left:
            found.append(f"not told: {str(path)!r}")
        elif fate is Fate.RESULT and not lines and not target.exists():
            found.append(f"no result and not told: {str(path)!r}")
        elif fate is Fate.RESULT and lines and path not in hindered:
            found.append(f"sound, but {lines}")
        elif fate is Fate.RESULT and not lines and target not in before:
            found += _of_pixels(path, target)
    return found


def _names(line: str, path: Path) -> bool:
    """Whether a line is about a file: its name may also begin another's."""
    for name in (printable(path), repr(str(path))):
        if re.search(re.escape(name) + r"(?:[:'\" ]|$)", line):
            return True
    return False


def _reached(case: Case) -> set[tuple[Path, Path]]:
    """The sources that the command comes to, each with the folder that was searched, or its own."""
    found: set[tuple[Path, Path]] = set()
    for given in case.inputs:
        if given in case.sources:
            found.add((given, given.parent))
            continue
        for path in case.sources:
            known = path.suffix.lower() in (*_PHOTOS, *_VIDEOS)  # a GIF only by its own name
            parts = path.relative_to(given).parts
            hidden = any(part.startswith(".") for part in parts)
            if known and not hidden and os.path.lexists(path) and not _in_output(case, path):
                found.add((path, given))
    return found


def _in_output(case: Case, path: Path) -> bool:
    """Whether a source lies in the results' folder, inside the folder that is searched."""
    return (
        case.output is not None
        and case.given in case.output.parents
        and (case.output in path.parents)
    )


def _target(case: Case, path: Path, folder: Path, before: dict[Path, Entry]) -> Path:
    video = path.suffix.lower() in _VIDEOS
    suffix = ".png" if path.suffix.lower() == ".gif" else path.suffix
    if video and case.has("--frames"):
        suffix = ""
    if case.output is None:
        return path.with_name(f"{path.stem}.deblurred{suffix}")
    as_file = case.inputs == [path] and case.output not in before
    if as_file and (case.output.suffix or (video and case.has("--frames"))):
        return case.output
    return (case.output / path.relative_to(folder)).with_suffix(suffix)


def _possible(case: Case, path: Path, target: Path, before: dict[Path, Entry]) -> bool:
    """Whether a target can be written for certain, as far as is known here."""
    more = ".comparison.png" if case.has("--side-by-side") else ""
    if case.nobody or case.has("--compare") or len(os.fsencode(target.name + more)) > 255:
        return False
    taken = target in before and target not in case.results
    named = target == case.output  # by the user, perhaps as a format that cannot hold it
    video = path.suffix.lower() in _VIDEOS
    return not taken and (not named or (target.suffix == ".png" and not video))


def _of_pixels(source: Path, target: Path) -> list[str]:
    """A result of 8 bits and no loss is brighter than its source by as much as the network says."""
    if source.suffix.lower() not in (".png", ".bmp") or target.suffix.lower() != ".png":
        return []
    with Image.open(source) as before, Image.open(target) as result:
        if before.format not in ("PNG", "BMP") or before.mode != "RGB":
            return []
        expected = np.asarray(before) + PLUS
        if np.array_equal(expected, np.asarray(result)):
            return []
    return [f"wrong pixels: {str(target)!r}"]
