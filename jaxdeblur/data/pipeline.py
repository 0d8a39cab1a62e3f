"""From a source of images or clips to batches on the devices.

A batch is `{"sharp": uint8 [B, P, P, 3], "sigma": float32 [B]}`: a Gaussian blur is made inside
the jitted step (`blur.make_pair`), so that half of the bytes travel and no core of the host works
on it. Blur, noise and JPEG of a camera (`degrade`) are made by the host: the batch then has
`"blurred"`, like `"sharp"`, instead of `"sigma"`. Of clips, `"blurred"` has three frames
(`triplets`). Every random choice is a function of the seed and of the sample's number, so a run is
repeated exactly, whatever the number of threads and processes.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from jaxdeblur.data import (
    cifar,
    clip_folders,
    clips,
    degrade,
    frame_store,
    motion,
    photos,
    triplets,
)
from jaxdeblur.errors import InputError

_log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]

CLIPS = {"reds": "REDS", "gopro": "GoPro", "clips": "clips"}  # datasets of frames, their titles

_ENDLESS = 2**40  # samples


class Images(Protocol):
    """Sharp uint8 `[H, W, 3]` images in a fixed order."""

    name: str
    labels: list[str]  # what to call each image

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> np.ndarray: ...
    def smallest_size(self) -> tuple[int, int, str]: ...


Source = Images | clips.Clips


def input_channels(config: ConfigDict) -> int:
    """Channels of the blurred input: 9, of three frames, for clips, else 3."""
    return 9 if config.dataset in CLIPS else 3


def open_source(config: ConfigDict, split: str) -> Source:
    """Opens the split "train", "val" or "test" of the configured dataset.

    Raises:
      InputError: no such data, or images smaller than the patch.
    """
    source: Source
    match config.dataset:
        case "cifar10":
            source = cifar.Cifar10(config.data_dir, split)
        case "photos":
            source = photos.photo_folder(config.data_dir, split)
        case "skimage":
            source = photos.skimage_photos(split)
        case _:
            source = open_clips(config.data_dir, split, config.blur_variant, CLIPS[config.dataset])
    key = "patch_size" if split == "train" else "eval_patch_size"
    check_fits(source, config[key], key)
    return source


def check_fits(source: Source, patch_size: int, key: str) -> None:
    """Raises InputError, naming the configuration's `key`, if a patch is larger than an image."""
    height, width, name = source.smallest_size()
    if patch_size > min(height, width):
        raise InputError(f"{key} = {patch_size} is larger than {name} ({height}x{width} pixels)")


def open_clips(data_dir: str, split: str, variant: str, title: str) -> clips.Clips:
    """Opens one split of a folder of frames, or of a store made from one.

    Args:
      data_dir: the folder or the store.
      split: see `clips.choose`.
      variant: which blurred frames, such as "blur" or "blur_jpeg".
      title: what to call the dataset.

    Raises:
      InputError: no such folder, clips that are not whole, or none for the split.
    """
    read: clips.Read
    if frame_store.is_store(data_dir):
        index = frame_store.open_store(data_dir, variant)
        if index.missing:
            _log.warning("%s: %d clips are not stored yet", data_dir, index.missing)
        chosen = clips.choose(index.clips, split, data_dir)
        read = frame_store.StoreReader(data_dir, chosen)
    else:
        chosen = clips.choose(clip_folders.open_folder(data_dir, variant), split, data_dir)
        for remark in clip_folders.remarks(chosen):
            _log.warning("%s, %s: %s", data_dir, split, remark)
        read = clip_folders.FolderReader(chosen)
    splits = sorted({clip.split or "clips" for clip in chosen})
    return clips.Clips(f"{title} {' and '.join(splits)} ({variant})", chosen, read)


def stratified_sigmas(
    num_images: int, repeats: int, bounds: tuple[float, float], seed: int
) -> np.ndarray:
    """Draws the blur of every image of an evaluation, or of training with fixed blur.

    The r-th of R repeats draws from the r-th of R equal parts of the range between `bounds`, which
    takes most of the chance out of an average over few images; R = 1 is the published protocol.
    Image i's value depends on the seed, i and r alone.

    Returns:
      float32 `[repeats, num_images]`, pixels.
    """
    draws = [np.random.default_rng([seed, r]).uniform(size=num_images) for r in range(repeats)]
    strata = (np.arange(repeats)[:, None] + np.stack(draws)) / repeats
    low, high = bounds
    return (low + strata * (high - low)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class GaussianBlur:
    """Chooses the blur of a patch, which the training step makes.

    Attributes:
      sigmas: `[N]`, pixels, of each image; None draws a fresh one every time.
      bounds: of a fresh sigma, pixels.
    """

    sigmas: np.ndarray | None
    bounds: tuple[float, float]
    margin = 0

    def __call__(self, patch: np.ndarray, index: int, rng: np.random.Generator) -> Batch:
        sigma = rng.uniform(*self.bounds) if self.sigmas is None else self.sigmas[index]
        return {"sharp": np.ascontiguousarray(patch), "sigma": np.asarray(sigma, np.float32)}


@dataclasses.dataclass(frozen=True)
class CameraBlur:
    """Spoils a patch at random as cameras do; the blur needs a margin around it."""

    camera: degrade.Camera
    margin = degrade.MARGIN

    def __call__(self, patch: np.ndarray, index: int, rng: np.random.Generator) -> Batch:
        del index
        blurred, sharp = degrade.degrade(patch, rng, self.camera)
        return {"sharp": np.ascontiguousarray(sharp), "blurred": np.ascontiguousarray(blurred)}


@dataclasses.dataclass(frozen=True)
class TrainingSample:
    """Cuts a random patch, flips and turns it, and blurs it or says how."""

    source: Images
    blur: GaussianBlur | CameraBlur | motion.CameraMotion
    patch_size: int
    flip: bool
    rotate: bool

    def __call__(self, index: int, rng: np.random.Generator) -> Batch:
        image = self.source[index]
        top, left = (rng.integers(0, size - self.patch_size + 1) for size in image.shape[:2])
        patch = _cut(image, top, left, self.patch_size, self.blur.margin)
        if self.flip and rng.random() < 0.5:
            patch = patch[:, ::-1]
        if self.rotate:
            patch = np.rot90(patch, int(rng.integers(4)))
        return self.blur(patch, index, rng)


@dataclasses.dataclass(frozen=True)
class MixedSample:
    """Takes a share of the samples from photographs, the others from clips."""

    frames: triplets.TripletSample
    photos: TrainingSample
    photo_share: float

    def __call__(self, index: int, rng: np.random.Generator) -> Batch:
        if rng.random() < self.photo_share:
            return self.photos(int(rng.integers(len(self.photos.source))), rng)
        return self.frames(index, rng)


def shuffled_epochs(num_images: int, seed: int) -> Callable[[int], int]:
    """Returns the image of each sample: every image once an epoch, each in an order of its own.

    Grain's `shuffle` takes milliseconds a sample where there are only a few images.
    """

    @functools.lru_cache(maxsize=2)  # around an epoch's end, threads are in both
    def order(epoch):
        return np.random.default_rng([seed, epoch]).permutation(num_images)

    return lambda position: int(order(position // num_images)[position % num_images])


def training_batches(
    config: ConfigDict, source: Source, first_step: int = 0
) -> grain.DatasetIterator:
    """This process's parts of an endless sequence of shuffled batches.

    The i-th part of a step's batch is that of the i-th process: joined in order, the parts are the
    same batch for any number of processes, and since every step takes one batch, the step says
    where to go on.

    Args:
      config: the data and the global batch's size.
      source: of the images or frames.
      first_step: number of batches to leave out.

    Yields:
      What `make_pair` takes, and `index`, int32 `[B]`, the images' or frames' numbers.
    """
    sample = _training_sample(config, source)

    def numbered(index: int, rng: np.random.Generator) -> Batch:
        return {**sample(index, rng), "index": np.asarray(index, np.int32)}

    number, count = jax.process_index(), jax.process_count()
    # Shuffle and number the samples before taking a share: the order and every sample's random
    # choices are then the same for any number of processes.
    dataset = (
        grain.MapDataset.range(_ENDLESS)
        .seed(config.seed)
        .map(shuffled_epochs(len(source), config.seed))
        .random_map(numbered)
        .batch(config.batch_size // count)[first_step * count + number :: count]
    )
    # Grain would read 500 batches ahead: seconds of all cores at the start, and their memory.
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
    return iter(dataset.to_iter_dataset(options))


def _training_sample(
    config: ConfigDict, source: Source
) -> Callable[[int, np.random.Generator], Batch]:
    if isinstance(source, clips.Clips):
        return _clip_sample(config, source)
    blur = _training_blur(config, len(source))
    return TrainingSample(source, blur, config.patch_size, config.flip, config.rotate)


def _clip_sample(
    config: ConfigDict, source: clips.Clips
) -> Callable[[int, np.random.Generator], Batch]:
    size, changes = config.patch_size, (config.flip, config.rotate)
    frames = triplets.TripletSample(source, size, *changes, config.brightness, config.frame_shift)
    if not config.photo_dir:
        return frames
    path = config.camera_response
    response = motion.read_response(path) if path else motion.srgb_response()
    camera = motion.CameraMotion(response, config.brightness)
    stills = photos.photo_folder(config.photo_dir, "train")
    check_fits(stills, config.patch_size, "patch_size")
    return MixedSample(frames, TrainingSample(stills, camera, size, *changes), config.photo_share)


def _training_blur(config: ConfigDict, num_images: int) -> GaussianBlur | CameraBlur:
    if config.degradation == "camera":
        return CameraBlur(degrade.Camera(**config.camera))
    bounds = (config.min_sigma, config.max_sigma)
    sigmas = None
    if not config.fresh_sigma:
        sigmas = stratified_sigmas(num_images, 1, bounds, config.seed)[0]
    return GaussianBlur(sigmas, bounds)


def evaluation_batches(config: ConfigDict, source: Source) -> Iterator[tuple[Batch, int]]:
    """This process's parts of the batches of an evaluation of patches.

    Every image or frame `eval_repeats` times, in order: of an image its central patch, of a frame a
    random one, always the same for the seed.

    Yields:
      A part of a batch of `eval_batch_size`, with the images' `index` beside them, and how many of
      the whole batch count: the last one is filled up with copies.
    """
    sample = _evaluation_sample(config, source)
    numbers = [(i, repeat) for repeat in range(config.eval_repeats) for i in range(len(source))]
    part = config.eval_batch_size // jax.process_count()
    for start in range(0, len(numbers), config.eval_batch_size):
        first = start + part * jax.process_index()
        own = range(first, first + part)
        samples = [sample(*numbers[min(number, len(numbers) - 1)]) for number in own]
        batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        yield batch, min(config.eval_batch_size, len(numbers) - start)


def evaluation_frame(source: clips.Clips, i: int) -> Batch:
    """A whole frame as a batch of one: what `make_pair` takes."""
    blurred, sharp = source.triplet(i, triplets.whole_window(source.size(i)))
    return {"blurred": blurred[None], "sharp": sharp[None]}


def _evaluation_sample(config: ConfigDict, source: Source) -> Callable[[int, int], Batch]:
    """Returns the function that makes the sample of an image's number and a repeat's."""
    seed, size = config.seed + 1, config.eval_patch_size
    if isinstance(source, clips.Clips):

        def triplet(i, repeat):
            rng = np.random.default_rng([seed, repeat, i])
            window = triplets.random_window(source.size(i), size, rng)
            blurred, sharp = source.triplet(i, window)
            return {"blurred": blurred, "sharp": sharp, "index": np.int32(i)}

        return triplet

    bounds = (config.min_sigma, config.max_sigma)
    sigmas = stratified_sigmas(len(source), config.eval_repeats, bounds, seed)

    def still(i, repeat):
        sharp = _centre(source[i], size)
        return {"sharp": sharp, "sigma": sigmas[repeat, i], "index": np.int32(i)}

    return still


def to_devices(batch: Batch, sharding: jax.sharding.Sharding) -> dict[str, jax.Array]:
    """Places a process's part of a batch on its devices, as one global array a key."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def _centre(image: np.ndarray, size: int) -> np.ndarray:
    top, left = ((length - size) // 2 for length in image.shape[:2])
    return image[top : top + size, left : left + size]


def _cut(image: np.ndarray, top: int, left: int, size: int, margin: int) -> np.ndarray:
    """A square and the margin around it, which is reflected where the image ends."""
    extent = size + 2 * margin
    top, left = top - margin, left - margin
    height, width = image.shape[:2]
    if min(top, left) >= 0 and top + extent <= height and left + extent <= width:
        return image[top : top + extent, left : left + extent]  # several times quicker
    rows = _reflected(np.arange(top, top + extent), height)
    columns = _reflected(np.arange(left, left + extent), width)
    return image[rows[:, None], columns]


def _reflected(positions: np.ndarray, length: int) -> np.ndarray:
    """Positions up to `length - 1` beyond the ends of an axis, mirrored at its first and last."""
    return np.abs(positions) - 2 * np.maximum(positions - (length - 1), 0)
