"""Looks through clips for what would spoil a training: says what there is and what is wrong."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdeblur.data.clips import store
from jaxdeblur.data.clips.folders import ClipFiles, examples, find_clips, read_frame, remarks
from jaxdeblur.data.clips.frames import Clip
from jaxdeblur.errors import InputError, naming_extra
from jaxdeblur.runtime.progress import ProgressLine

with naming_extra():  # at once, not in the middle of a report
    from skimage.registration import phase_cross_correlation

# What a clip's name looks like, and the number of clips and frames of each whole split: of the
# REDS and GoPro publications (Nah et al., CVPRW 2019 and CVPR 2017).
_OFFICIAL = {
    "REDS": (
        re.compile(r"\d{3}"),
        {"train": (240, 24_000), "val": (30, 3_000), "test": (30, 3_000)},
    ),
    "GoPro": (re.compile(r"GOPR\d+_\d+_\d+"), {"train": (22, 2_103), "test": (11, 1_111)}),
}

_REDUCTION = 4  # frames are compared at a quarter of their size
_LARGEST_SHIFT = 4  # pixels; a blur that is not symmetric may move a picture by as much
_SMALLEST = 32  # pixels; of less nothing can be told
# A frame is misplaced only where another place makes the difference that much smaller.
_CLEARLY = 0.5


class _Frame(NamedTuple):
    """What is kept of a pair: grey pictures at a reduced size, and whether it is the same twice."""

    blurred: np.ndarray
    sharp: np.ndarray
    digest: bytes
    same: bool


def check(folder: str | os.PathLike[str], variant: str, say: Callable[[str], None]) -> int:
    """Decodes every frame of a folder and tells what is found.

    Args:
      folder: clips, or a store of frames, of which the index is read.
      variant: which blurred frames.
      say: takes the report line by line.

    Returns:
      The number of problems told.

    Raises:
      InputError: no such folder, or no clips in it.
    """
    if store.is_store(folder):
        index = store.open_store(folder, variant)
        say(f"{folder}: a store of frames ({variant})")
        for line in _inventory(index.clips):
            say(line)
        if index.missing:
            say(f"problem: {index.missing} clips are missing; run `jaxdeblur prepare frames` again")
        return int(index.missing > 0)
    root = Path(folder).expanduser()
    found = find_clips(root, variant)
    say(f"{root}: clips with {variant!r} frames; kinds there: {', '.join(found.variants)}")
    for line in _inventory(found.clips):
        say(line)
    if found.blurred_alone:
        say(
            f"{len(found.blurred_alone)} clips without sharp frames are not used: "
            f"{examples(found.blurred_alone)}"
        )
    for remark in remarks(found.clips):
        say(remark)
    problems = 0
    for problem in [*found.problems, *_look_through(found.clips)]:
        problems += 1
        say(f"problem: {problem}")
    say(f"{problems} problems" if problems else "no problems")
    return problems


def _inventory(clips: Sequence[Clip]) -> Iterator[str]:
    """A line for each split: clips, frames, sizes, and how much of the whole dataset it is."""
    by_split = defaultdict(list)
    for clip in clips:
        by_split[clip.split].append(clip)
    for split, chosen in by_split.items():
        frames = sum(len(clip.frames) for clip in chosen)
        sizes = sorted({f"{clip.size[1]}x{clip.size[0]}" for clip in chosen})
        line = f"{split or 'no split'}: {len(chosen)} clips, {frames} frames, {', '.join(sizes)}"
        yield line + _share_of_official(split, chosen, frames)


def _share_of_official(split: str, clips: Sequence[Clip], frames: int) -> str:
    for title, (pattern, splits) in _OFFICIAL.items():
        if split in splits and all(pattern.fullmatch(clip.name) for clip in clips):
            counts = (len(clips), frames)
            if counts == splits[split]:
                return f": all of {title}'s"
            official_clips, official_frames = splits[split]
            return (
                f"; {title} has {official_clips} clips and {official_frames} frames there, so it "
                "is not complete"
            )
    return ""


def _look_through(clips: Sequence[ClipFiles]) -> Iterator[str]:
    """Decodes all frames; tells of damaged, equal, misplaced and repeated ones."""
    seen: dict[bytes, Clip] = {}
    overlaps: dict[tuple[str, str], list[str]] = defaultdict(list)
    with (
        ThreadPoolExecutor() as threads,
        ProgressLine("checking", sum(len(clip.frames) for clip in clips)) as progress,
    ):
        done = 0
        for clip in clips:
            pairs = list(threads.map(functools.partial(_read, clip), range(len(clip.frames))))
            yield from (str(pair) for pair in pairs if isinstance(pair, InputError))
            frames = {i: pair for i, pair in enumerate(pairs) if isinstance(pair, _Frame)}
            if same := [clip.frames[i] for i, frame in frames.items() if frame.same]:
                yield f"{clip.label}: blurred and sharp are the same: {examples(same)}"
            yield from _misplaced(clip, frames)
            for i, frame in frames.items():
                first = seen.setdefault(frame.digest, clip)
                if first.split != clip.split:
                    overlaps[first.split, clip.split].append(f"{clip.name}/{clip.frames[i]}")
            done += len(clip.frames)
            progress.update(done)
    for (one, other), names in overlaps.items():
        yield (
            f"{one or 'no split'} and {other or 'no split'} share sharp frames: {examples(names)}"
        )


def _read(clip: ClipFiles, i: int) -> _Frame | InputError:
    try:
        blurred, sharp = (read_frame(side[i], clip.size) for side in (clip.blurred, clip.sharp))
    except InputError as error:
        return error
    digest = hashlib.blake2b(sharp.tobytes(), digest_size=16).digest()
    same = np.array_equal(blurred, sharp)
    return _Frame(_reduce(blurred), _reduce(sharp), digest, same)


def _reduce(frame: np.ndarray) -> np.ndarray:
    """Grey, `[H / 4, W / 4]`."""
    grey = frame.mean(axis=-1, dtype=np.float32)
    height, width = (length // _REDUCTION for length in grey.shape)
    grey = grey[: height * _REDUCTION, : width * _REDUCTION]
    return grey.reshape(height, _REDUCTION, width, _REDUCTION).mean(axis=(1, 3))


def _misplaced(clip: Clip, frames: dict[int, _Frame]) -> Iterable[str]:
    """Tells of frames whose blurred picture fits elsewhere clearly better than where it is."""
    if min(clip.size) < _SMALLEST:
        return
    shifted, swapped = [], []
    for i, frame in frames.items():
        own = _difference(frame.blurred, frame.sharp)
        neighbours = {j: frames[j].sharp for j in (i - 1, i + 1) if j in frames}
        fits = {j: _difference(frame.blurred, sharp) for j, sharp in neighbours.items()}
        if fits and min(fits.values()) < _CLEARLY * own:
            like = clip.frames[min(fits, key=fits.__getitem__)]
            swapped.append(f"{clip.frames[i]} (like {like})")
        elif shift := _shift(frame.blurred, frame.sharp, own):
            down, right = shift
            shifted.append(f"{clip.frames[i]} ({down} down, {right} right)")
    if swapped:
        yield f"{clip.label}: blurred frames look like another sharp one: {examples(swapped)}"
    if shifted:
        yield f"{clip.label}: blurred frames are shifted, by pixels: {examples(shifted)}"


def _shift(blurred: np.ndarray, sharp: np.ndarray, own: float) -> tuple[int, int] | None:
    """The shift that makes the pictures fit clearly better, in pixels of the frame, if any."""
    if own == 0 or min(blurred.std(), sharp.std()) == 0:
        return None
    found, _, _ = phase_cross_correlation(sharp, blurred, normalization=None)  # type: ignore[arg-type]
    down, right = (-round(float(x)) for x in found)
    if max(abs(down), abs(right)) * _REDUCTION <= _LARGEST_SHIFT:
        return None
    height, width = sharp.shape
    rows, columns = (
        slice(max(down, 0), height + min(down, 0)),
        slice(max(right, 0), width + min(right, 0)),
    )
    moved = np.roll(sharp, (down, right), (0, 1))
    if _difference(blurred[rows, columns], moved[rows, columns]) >= _CLEARLY * own:
        return None
    return down * _REDUCTION, right * _REDUCTION


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean((one - other) ** 2))
