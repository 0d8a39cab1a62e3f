"""Finds clips in a folder: frames blurred and sharp, in the layouts that datasets come in.

A folder whose path has a component `sharp`, or `train_sharp` and the like, holds sharp frames; the
same path with `blur` (or another variant, such as `blur_jpeg` or `blur_gamma`) there holds the
blurred ones. A component `train`, `val` or `test` says the split, what is left of the path is the
clip's name. So all of these are found:

  train_blur/000/00000000.png           REDS, as its parts unpack side by side
  train/train_blur/000/00000000.png     REDS, one level deeper
  test/GOPR0384_11_00/blur/000001.png   GoPro
  val/blur/holiday/1.jpg                and one's own
  blur/1.jpg                            a single clip
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxdeblur.data.clips.frames import Clip, Part
from jaxdeblur.data.clips.image_folders import ImageFolder, image_folders
from jaxdeblur.data.images import UNREADABLE, read_header, read_rgb
from jaxdeblur.errors import InputError
from jaxdeblur.runtime import paths

# A component of a path that is no part of the clip's name: a split, a kind of frames, or both.
_PART = re.compile(r"(train|val|test)|(?:(train|val|test)_)?(sharp|blur(?:red)?(?:_\w+)?)")

_CACHE_BYTES = 2**30  # decoded frames kept in memory

_THREADS = 16  # that read headers: of a network's folder, each waits


@dataclasses.dataclass(frozen=True)
class ClipFiles(Clip):
    """A clip of image files.

    Attributes:
      blurred: the file of each frame.
      sharp: likewise.
      modes: their types, see `read_header`.
      others: number of files in its folders that are no images.
    """

    blurred: tuple[Path, ...]
    sharp: tuple[Path, ...]
    modes: frozenset[str]
    others: int


@dataclasses.dataclass(frozen=True)
class Found:
    """What is in a folder.

    Attributes:
      clips: the whole ones, in order.
      problems: a line for each other one: what is wrong with it, with up to three examples.
      blurred_alone: labels of clips in splits that have no sharp frames at all, as REDS is
        published for its test.
      variants: names of the kinds of blurred frames there are.
    """

    clips: list[ClipFiles]
    problems: list[str]
    blurred_alone: list[str]
    variants: list[str]


def find_clips(root: Path, variant: str) -> Found:
    """Searches a folder for clips, pairs their frames by name and reads the files' headers.

    Args:
      root: the folder.
      variant: which blurred frames, such as "blur" or "blur_jpeg".

    Raises:
      InputError: no such folder, or no such frames and sharp ones in it.
    """
    match = _PART.fullmatch(variant)
    if match is None or match[3] in (None, "sharp"):
        raise InputError(f"{variant!r} is no kind of blurred frames, such as blur or blur_jpeg")
    if not root.is_dir():
        raise InputError(f"{str(root)!r} is no folder; give one of clips")
    pairs, variants, problems = _group(root, variant)
    if variant not in variants and problems:  # such as a folder that may not be read
        raise InputError(problems[0])
    if variant not in variants:
        raise InputError(
            f"{str(root)!r} holds no {variant!r} frames (kinds of blurred frames there: "
            f"{', '.join(variants) or 'none'}); it needs folders such as train_sharp/000 and "
            f"train_{variant}/000, or CLIP/sharp and CLIP/{variant}"
        )
    with_sharp = {split for (split, _), pair in pairs.items() if "sharp" in pair}
    if not with_sharp and problems:
        raise InputError(problems[0])
    if not with_sharp:
        raise InputError(
            f"{str(root)!r} holds {variant!r} frames but no sharp ones beside them, in folders "
            "such as train_sharp/000 or CLIP/sharp"
        )
    clips, blurred_alone = [], []
    for (split, name), pair in sorted(pairs.items(), key=lambda item: _natural("/".join(item[0]))):
        if split not in with_sharp:
            blurred_alone.append(f"{split}/{name}")
            continue
        try:
            clips.append(_make_clip(split, name, pair, variant))
        except InputError as error:
            problems.append(str(error))
    return Found(clips, problems, blurred_alone, variants)


class FolderReader:
    """Decodes image files, and keeps the last ones.

    Args:
      clips: their files.
      cache_bytes: how much to keep.
    """

    def __init__(self, clips: Sequence[ClipFiles], cache_bytes: int = _CACHE_BYTES):
        self._clips = clips
        frame_bytes = max(3 * clip.size[0] * clip.size[1] for clip in clips)
        self._decode = functools.lru_cache(maxsize=cache_bytes // frame_bytes)(read_frame)

    def __call__(self, parts: Sequence[Part]) -> list[np.ndarray]:
        return [self._read(part) for part in parts]

    def _read(self, part: Part) -> np.ndarray:
        clip = self._clips[part.clip]
        files = clip.blurred if part.kind == "blurred" else clip.sharp
        return self._decode(files[part.frame], clip.size)[part.window.slices]


def remarks(clips: Sequence[ClipFiles]) -> list[str]:
    """What to say of clips: files that were skipped, frames that are converted."""
    others = sum(clip.others for clip in clips)
    modes = sorted({mode for clip in clips for mode in clip.modes} - {"RGB"})
    lines = [f"files that are no images, skipped: {others}"] if others else []
    return lines + [f"frames of type {', '.join(modes)} are converted to RGB"] * bool(modes)


def read_frame(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Decodes a frame, uint8 `[H, W, 3]`.

    Raises:
      InputError: it is damaged, or no longer of the size that its header told.
    """
    try:
        frame = read_rgb(path)
    except UNREADABLE as error:
        raise InputError(f"{path} is damaged ({error}); replace it, or remove its clip") from error
    if frame.shape[:2] != size:
        height, width, _ = frame.shape
        raise InputError(f"{path} has {height}x{width} pixels, not {size[0]}x{size[1]} any more")
    return frame


def open_folder(data_dir: str | os.PathLike[str], variant: str) -> list[ClipFiles]:
    """Finds the clips of a folder.

    Raises:
      InputError: no such folder, no clips in it, or some that are not whole.
    """
    root = paths.local(data_dir, "data_dir")
    found = find_clips(root, variant)
    if found.problems:
        more = f" and {len(found.problems) - 3} more" if len(found.problems) > 3 else ""
        raise InputError(
            f"{'; '.join(found.problems[:3])}{more}; `jaxdeblur prepare check {root}` lists all"
        )
    return found.clips


def _group(
    root: Path, variant: str
) -> tuple[dict[tuple[str, str], dict[str, ImageFolder]], list[str], list[str]]:
    """Returns each clip's folders by kind, by split and name; all variants; and problems."""
    pairs: dict[tuple[str, str], dict[str, ImageFolder]] = {}
    variants, problems, twice = set(), [], set()

    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read ({error.strerror})")

    for folder in image_folders(root, unreadable):
        split, kind, name = _place(folder.path.relative_to(root).parts)
        if kind not in ("", "sharp"):
            variants.add(kind)
        if kind not in ("sharp", variant):
            continue
        pair = pairs.setdefault((split, name or root.resolve().name), {})
        if kind in pair:
            problems.append(f"{pair[kind].path} and {folder.path} are the same clip; remove one")
            twice.add((split, name or root.resolve().name))
        pair[kind] = folder
    pairs = {place: pair for place, pair in pairs.items() if place not in twice}
    return pairs, sorted(variants), problems


def _place(parts: Sequence[str]) -> tuple[str, str, str]:
    """Returns the split, the kind of frames ("sharp", a variant or "") and the clip's name."""
    split, kind, names = "", "", []
    for part in parts:
        match = _PART.fullmatch(part)
        if match is None:
            names.append(part)
        else:
            split, kind = match[1] or match[2] or split, match[3] or kind
    return split, kind, "/".join(names)


def _make_clip(split: str, name: str, pair: dict[str, ImageFolder], variant: str) -> ClipFiles:
    label = f"{split}/{name}" if split else name
    for kind in (variant, "sharp"):
        if kind not in pair:
            (other,) = pair.values()
            raise InputError(f"{label}: {other.path} has no partner, a folder of {kind} frames")
        if repeated := pair[kind].repeated:
            raise InputError(
                f"{label}: {pair[kind].path} has other files of the same frames beside "
                f"{examples(repeated)}"
            )
    blurred, sharp = pair[variant].images, pair["sharp"].images
    for these, those, kind in ((sharp, blurred, "blurred"), (blurred, sharp, "sharp")):
        if missing := [frame for frame in these if frame not in those]:
            raise InputError(
                f"{label}: {len(these)} frames against {len(those)}, no {kind} partner of "
                f"{examples(missing)}"
            )
    frames = tuple(sorted(sharp, key=_natural))
    files = [side[frame] for frame in frames for side in (blurred, sharp)]
    with ThreadPoolExecutor(_THREADS) as threads:
        headers = list(threads.map(_header, files))
    size = headers[0][:2]
    if other := [
        f"{'/'.join(file.parts[-3:])} ({height}x{width})"
        for file, (height, width, _) in zip(files, headers, strict=True)
        if (height, width) != size
    ]:
        raise InputError(
            f"{label}: not all frames have {size[0]}x{size[1]} pixels: {examples(other)}"
        )
    return ClipFiles(
        split,
        name,
        frames,
        size,
        blurred=tuple(blurred[frame] for frame in frames),
        sharp=tuple(sharp[frame] for frame in frames),
        modes=frozenset(mode for _, _, mode in headers),
        others=sum(folder.others for folder in pair.values()),
    )


def _header(path: Path) -> tuple[int, int, str]:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: no readable image (not a file); replace it")
    try:
        return read_header(path)
    except UNREADABLE as error:
        raise InputError(f"{path}: no readable image ({error}); replace it") from error


def examples(names: Sequence[str]) -> str:
    """The first three of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame 10 after frame 9."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
