"""Clips as a source: frame after frame, each with its neighbours, never across clips.

The frames are read from a folder of image files (`folders`) or from a store made of one
(`store`).
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from jaxdeblur.errors import InputError


@dataclasses.dataclass(frozen=True)
class Clip:
    """Frames of one shot, each blurred and sharp.

    Attributes:
      split: "train", "val", "test", or "" where the folder names none.
      name: unique within its split.
      frames: their names, in order.
      size: height and width in pixels.
    """

    split: str
    name: str
    frames: tuple[str, ...]
    size: tuple[int, int]

    @property
    def label(self) -> str:
        """The clip's name with its split."""
        return f"{self.split}/{self.name}" if self.split else self.name


AnyClip = TypeVar("AnyClip", bound=Clip)


class Window(NamedTuple):
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


class Part(NamedTuple):
    """What to read: a window of a frame, both by number, blurred or sharp."""

    clip: int
    frame: int
    kind: Literal["blurred", "sharp"]
    window: Window


Read = Callable[[Sequence[Part]], list[np.ndarray]]  # uint8 [height, width, 3] each


class Clips:
    """The frames of clips, numbered through.

    Attributes:
      name: what to call them in messages.
      clips: the clips in order.
      labels: `CLIP/FRAME` of every frame.
      num_frames: blurred ones of a sample: 3, or 1, the current one alone.
    """

    def __init__(self, name: str, clips: Sequence[Clip], read: Read, num_frames: int = 3):
        self.name = name
        self.num_frames = num_frames
        self.clips = clips
        self.labels = [f"{clip.name}/{frame}" for clip in clips for frame in clip.frames]
        self._first = list(itertools.accumulate((len(clip.frames) for clip in clips), initial=0))
        self._read = read

    def __len__(self) -> int:
        return self._first[-1]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.clips[self._locate(index)[0]].size

    def sizes(self) -> list[int]:
        """Height and width of each clip, in one row."""
        return [length for clip in self.clips for length in clip.size]

    def smallest_size(self) -> tuple[int, int, str]:
        """Height and width of the clip with the shortest side, and its name."""
        clip = min(self.clips, key=lambda clip: min(clip.size))
        return (*clip.size, clip.label)

    def triplet(
        self, index: int, window: Window, shift: tuple[int, int] = (0, 0)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads a frame with its neighbours, which at the clip's ends are the frame itself.

        Args:
          index: of the frame.
          window: of it.
          shift: pixels down and to the right by which the next frame's window lies from `window`,
            and the previous one's the other way.

        Returns:
          uint8 `[H, W, 9]`, the previous, this and the next frame blurred, or, with `num_frames` 1,
          `[H, W, 3]`, this one; and `[H, W, 3]`, this one sharp.
        """
        clip, frame = self._locate(index)
        last = len(self.clips[clip].frames) - 1
        parts = [Part(clip, frame, "sharp", window)]
        for step in (-1, 0, 1) if self.num_frames == 3 else (0,):
            moved = window._replace(
                top=window.top + step * shift[0], left=window.left + step * shift[1]
            )
            parts.append(Part(clip, min(max(frame + step, 0), last), "blurred", moved))
        sharp, *blurred = self._read(parts)
        return np.concatenate(blurred, axis=-1), sharp

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        clip = bisect.bisect_right(self._first, index) - 1
        return clip, index - self._first[clip]


def choose(clips: Sequence[AnyClip], split: str, data_dir: str | os.PathLike[str]) -> list[AnyClip]:
    """Returns the clips of a split.

    Clips of no split are for training. Where there are none for validation, every tenth of those
    for training is held out, the last one of fewer than ten; where there are none to test, those
    for validation serve.

    Args:
      clips: all clips.
      split: "train", "val" or "test".
      data_dir: where they are, for the message.

    Raises:
      InputError: the split has no clips.
    """
    counts = Counter(clip.split for clip in clips)
    if split == "test" and not counts["test"]:
        split = "val"
    chosen = [clip for clip in clips if clip.split == split]
    if split == "train" or (split == "val" and not counts["val"]):
        pool = [clip for clip in clips if clip.split in ("train", "")]
        held_out = [] if counts["val"] else pool[9::10] or pool[-1:]
        chosen = held_out if split == "val" else [clip for clip in pool if clip not in held_out]
    if not chosen:
        there = ", ".join(f"{count} {name or 'of no split'}" for name, count in counts.items())
        raise InputError(
            f"{os.fspath(data_dir)!r} holds no clips for {split!r} (clips there: {there}; without "
            f"some in val_sharp and val_blur, one is held out); put some into {split}_sharp and "
            f"{split}_blur"
        )
    return chosen
