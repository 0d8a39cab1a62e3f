"""Samples of clips: three blurred frames `[P, P, 9]` and the sharp one in the middle `[P, P, 3]`.

The published training sample of REDS (Sim & Kim, CVPRW 2019; Mancini & Simonati, "Deep Image
Deblurring", University of Bologna, 2020): one random square of the three frames and the sharp one,
made brighter or darker, mirrored and turned all alike; only the previous and the next frame are
moved a little in opposite directions.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxdeblur.data.clips.frames import Clips, Window


@dataclasses.dataclass(frozen=True)
class TripletSample:
    """Cuts and changes a triplet at random.

    Attributes:
      source: the frames.
      patch_size: side of the square, pixels; no larger than a frame.
      flip: mirror left-right, with probability 0.5.
      rotate: turn by 90 degrees, with probability 0.5.
      brightness: largest change of brightness, of values in [0, 1]; made on the device.
      frame_shift: largest shift of the neighbours along each axis, pixels; less where the frame
        leaves no room for it.
    """

    source: Clips
    patch_size: int
    flip: bool
    rotate: bool
    brightness: float
    frame_shift: int

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        starts, shift = [], []
        for size in self.source.size(index):
            room = size - self.patch_size
            most = min(self.frame_shift, room // 2)
            moved = int(rng.integers(-most, most + 1))
            starts.append(int(rng.integers(abs(moved), room - abs(moved) + 1)))
            shift.append(moved)
        window = Window(starts[0], starts[1], self.patch_size, self.patch_size)
        blurred, sharp = self.source.triplet(index, window, (shift[0], shift[1]))
        if self.flip and rng.random() < 0.5:
            blurred, sharp = blurred[:, ::-1], sharp[:, ::-1]
        if self.rotate and rng.random() < 0.5:
            blurred, sharp = np.rot90(blurred), np.rot90(sharp)
        return {
            "blurred": np.ascontiguousarray(blurred),
            "sharp": np.ascontiguousarray(sharp),
            "brightness": np.asarray(rng.uniform(-self.brightness, self.brightness), np.float32),
        }


def random_window(size: tuple[int, int], patch_size: int, rng: np.random.Generator) -> Window:
    """Draws a square of a frame."""
    top, left = (int(rng.integers(0, length - patch_size + 1)) for length in size)
    return Window(top, left, patch_size, patch_size)


def whole_window(size: tuple[int, int]) -> Window:
    """The whole frame."""
    return Window(0, 0, *size)
