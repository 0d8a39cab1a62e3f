"""Clips as a source: three blurred frames for each sharp one, from a folder or a store of frames.

REDS, GoPro and one's own clips differ in their titles alone.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxdeblur.data import motion, photos
from jaxdeblur.data.clips import folders, store, triplets
from jaxdeblur.data.clips.frames import Clip, Clips, Read, choose
from jaxdeblur.data.patches import PatchSample
from jaxdeblur.data.source import EvaluationSample, Kind, Sample, TrainingSample, check_fits

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_log = logging.getLogger(__name__)


class ClipSource(Clips):
    """The frames of one split's clips; see `source.Source`."""

    def __init__(self, name: str, clips: Sequence[Clip], read: Read, num_frames: int = 3):
        super().__init__(name, clips, read, num_frames)
        self.title = name

    def training_sample(self, config: ConfigDict) -> TrainingSample:
        """Random samples; a share of them of photographs, see `config.photo_dir`."""
        size, changes = config.patch_size, (config.flip, config.rotate)
        frames = triplets.TripletSample(self, size, *changes, config.brightness, config.frame_shift)
        if not config.photo_dir:
            return frames
        stills = photos.photo_folder(config.photo_dir, "train")
        check_fits(stills, size, "patch_size")
        if self.num_frames == 1:
            sample = stills.training_sample(config)
        else:
            path = config.camera_response
            response = motion.read_response(path) if path else motion.srgb_response()
            camera = motion.CameraMotion(response, config.brightness)
            sample = PatchSample(stills, camera, size, *changes)
        return MixedSample(frames, sample, len(stills), config.photo_share)

    def evaluation_sample(self, config: ConfigDict) -> EvaluationSample:
        """A random square of each frame and repeat, always the same for the seed."""

        def sample(index: int, repeat: int) -> Sample:
            rng = np.random.default_rng([config.seed + 1, repeat, index])
            window = triplets.random_window(self.size(index), config.eval_patch_size, rng)
            blurred, sharp = self.triplet(index, window)
            return {"blurred": blurred, "sharp": sharp}

        return sample

    def whole_sample(self, index: int) -> Sample:
        """A whole frame."""
        blurred, sharp = self.triplet(index, triplets.whole_window(self.size(index)))
        return {"blurred": blurred, "sharp": sharp}

    def protocol(self, config: ConfigDict) -> str:
        """See `source.Source`."""
        size, repeats = config.eval_patch_size, config.eval_repeats
        if not size:
            return "whole frames"
        times = f", {repeats} of each frame" if repeats > 1 else ", one of each frame"
        return f"random {size}x{size} crops{times}, seed {config.seed}"


@dataclasses.dataclass(frozen=True)
class MixedSample:
    """Takes a share of the samples from photographs, the others from clips."""

    frames: TrainingSample
    photos: TrainingSample
    num_photos: int
    photo_share: float

    def __call__(self, index: int, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.photo_share:
            return self.frames(index, rng)
        sample = self.photos(int(rng.integers(self.num_photos)), rng)
        return {"brightness": np.zeros((), np.float32), **sample}


def kind(title: str) -> Kind:
    """A dataset of clips of that title."""

    def open_split(config: ConfigDict, split: str) -> ClipSource:
        return open_clips(config.data_dir, split, config.blur_variant, title, config.num_frames)

    return Kind(open_split, has_whole=True, lies_in=_lies_in)


def open_clips(data_dir: str, split: str, variant: str, title: str, num_frames: int) -> ClipSource:
    """Opens one split of a folder of frames, or of a store made from one.

    Args:
      data_dir: the folder or the store.
      split: see `frames.choose`.
      variant: which blurred frames, such as "blur" or "blur_jpeg".
      title: what to call the dataset.
      num_frames: blurred ones of a sample, 3 or 1.

    Raises:
      InputError: no such folder, clips that are not whole, or none for the split.
    """
    read: Read
    if store.is_store(data_dir):
        index = store.open_store(data_dir, variant)
        if index.missing:
            _log.warning("%s: %d clips are not stored yet", data_dir, index.missing)
        chosen = choose(index.clips, split, data_dir)
        read = store.StoreReader(data_dir, chosen)
    else:
        chosen = choose(folders.open_folder(data_dir, variant), split, data_dir)
        for remark in folders.remarks(chosen):
            _log.warning("%s, %s: %s", data_dir, split, remark)
        read = folders.FolderReader(chosen)
    splits = sorted({clip.split or "clips" for clip in chosen})
    name = f"{title} {' and '.join(splits)} ({variant})"
    return ClipSource(name, chosen, read, num_frames)


def _lies_in(folder: str) -> bool:
    """A store, or a folder with one of sharp frames in it."""
    if store.is_store(folder):
        return True
    names = (name for _, below, _ in os.walk(Path(folder).expanduser()) for name in below)
    return any(name.split("_")[-1] == "sharp" for name in names)
