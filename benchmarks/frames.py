"""Measures training samples a second from clips: a folder of PNG files against a store of them.

  python benchmarks/frames.py

makes clips of 1280x720 in a temporary folder, as REDS has them, out of the photographs that
scikit-image ships (--images takes others), and stores them as `jaxdeblur prepare frames` does.
Samples of configs/atrous_reds.py are then loaded from the folder and from the store in turns, each
by a process of its own. Prints samples for each second of a core's time, and the most memory that
each process held after a tenth as many samples, which are not timed, and at the end.

Every sample decodes its frames of the folder anew: training keeps 1 GiB of them, 388 of the 48,000
of REDS, which is as good as none, but here would be all.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from runners import peak_resident_bytes

from jaxdeblur.configs import atrous_reds
from jaxdeblur.data import pipeline
from jaxdeblur.data.clips import folders, store, storing
from jaxdeblur.data.clips.source import ClipSource
from jaxdeblur.data.images import image_files
from jaxdeblur.data.photos import Photos, skimage_photos
from jaxdeblur.errors import InputError, reported

HEIGHT, WIDTH = 720, 1280
MOVES = (2, 8)  # least and most pixels along each axis from a frame to the next
EXPOSURES = 8  # whose mean a blurred frame is
TURNS = 5  # of each loader, so that what else the machine does slows both alike


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", metavar="DIR", help="photographs (default: scikit-image's)")
    for name, default, text in (
        ("--clips", 2, "to make"),
        ("--frames", 20, "of each clip"),
        ("--samples", 5000, "to load from the store"),
        ("--folder-samples", 100, "to load from the folder, which is slow"),
        ("--seed", 0, "of clips and samples"),
    ):
        text += " (default: %(default)s)"
        parser.add_argument(name, type=int, default=default, metavar="N", help=text)
    with reported():
        run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Makes clips and their store, loads from both and prints a table."""
    config = atrous_reds.get_config()
    check(arguments, TURNS * config.batch_size)
    config.seed = arguments.seed
    photos = open_photos(arguments.images)
    with tempfile.TemporaryDirectory() as temporary:
        folder, stored = Path(temporary, "folder"), Path(temporary, "store")
        write_clips(folder, photos, arguments.clips, arguments.frames, arguments.seed)
        seconds = write_store(folder, stored, config.blur_variant)
        num_frames = 2 * arguments.clips * arguments.frames
        print(f"{num_frames} frames of {WIDTH}x{HEIGHT}, stored in {seconds:.1f} s", flush=True)
        with (
            contextlib.closing(Loader(config, folder, arguments.folder_samples)) as from_folder,
            contextlib.closing(Loader(config, stored, arguments.samples)) as from_store,
        ):
            for _ in range(TURNS):
                from_folder.take_turn()
                from_store.take_turn()
        print("| | samples/s of a core | samples | MB on disk | memory MB | at the end |")
        print("|---|--:|--:|--:|--:|--:|")
        print(line("folder", folder, from_folder))
        print(line("store", stored, from_store))
        print(f"| ratio | {from_store.rate / from_folder.rate:.1f} | | | | |")


def check(arguments: argparse.Namespace, fewest: int) -> None:
    """Raises InputError for numbers that are too small.

    Args:
      arguments: of the command line.
      fewest: samples that can be measured.
    """
    least = {"clips": 1, "frames": 1, "samples": fewest, "folder_samples": fewest, "seed": 0}
    for name, minimum in least.items():
        if (value := getattr(arguments, name)) < minimum:
            option = name.replace("_", "-")
            raise InputError(f"--{option} {value} must be at least {minimum}")


def open_photos(folder: str | None) -> Photos:
    """Opens the photographs of a folder, or those that scikit-image ships."""
    if folder is None:
        return skimage_photos("train")
    files = image_files(Path(folder).expanduser())
    if not files:
        raise InputError(f"--images {folder!r} holds no images")
    return Photos(files, f"--images {folder!r}")


def write_clips(folder: Path, photos: Photos, num_clips: int, num_frames: int, seed: int) -> None:
    """Writes clips as REDS has them: `train_sharp/000/00000000.png` and `train_blur/...`.

    Raises:
      InputError: they cannot be written, such as to a full disk.
    """
    for clip in range(num_clips):
        rng = np.random.default_rng([seed, clip])
        scene = make_scene(photos, rng)
        move = rng.integers(*MOVES, size=2, endpoint=True) * rng.choice([-1, 1], 2)
        try:
            sharp, blurred = (folder / f"train_{kind}" / f"{clip:03}" for kind in ("sharp", "blur"))
            sharp.mkdir(parents=True)
            blurred.mkdir(parents=True)
            for frame in range(num_frames):
                name = f"{frame:08}.png"
                Image.fromarray(pan(scene, frame * move)).save(sharp / name)
                Image.fromarray(expose(scene, frame * move, move)).save(blurred / name)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error})") from error


def make_scene(photos: Photos, rng: np.random.Generator) -> np.ndarray:
    """Lays parts of four photographs together, uint8 `[HEIGHT, WIDTH, 3]`."""
    chosen = np.resize(rng.permutation(len(photos)), 4)
    parts = [cut(photos[int(index)], (HEIGHT // 2, WIDTH // 2), rng) for index in chosen]
    return np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])


def cut(photo: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random part of a photograph in its own pixels; one that is too small is repeated."""
    for axis, length in enumerate(size):
        start = rng.integers(max(0, photo.shape[axis] - length) + 1)
        photo = photo.take(np.arange(start, start + length), axis, mode="wrap")
    return photo


def pan(scene: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The scene moved down and to the right, and in again at the other side."""
    return np.roll(scene, np.rint(offset).astype(int), axis=(0, 1))


def expose(scene: np.ndarray, offset: np.ndarray, move: np.ndarray) -> np.ndarray:
    """The scene as a camera sees it that moves all the while that its shutter is open."""
    times = np.linspace(-0.5, 0.5, EXPOSURES)
    return np.rint(np.mean([pan(scene, offset + t * move) for t in times], axis=0)).astype(np.uint8)


def write_store(folder: Path, path: Path, variant: str) -> float:
    """Stores the clips of a folder at a path; returns the seconds that it took."""
    start = time.perf_counter()
    storing.write(folders.open_folder(folder, variant), path, variant)
    return time.perf_counter() - start


class Loader:
    """A process that loads training samples, in turns.

    Args:
      config: of the training.
      path: a folder of clips or a store.
      num_samples: to load in all turns together, down to whole batches.

    Attributes:
      samples: that were loaded.
      seconds: of a core that they took.
      memory: most bytes that the process held, before the turns and by now.
    """

    def __init__(self, config: ConfigDict, path: Path, num_samples: int):
        self._batch_size = config.batch_size
        self._num_batches = num_samples // (TURNS * config.batch_size)
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, config, path), daemon=True)
        self._process.start()
        theirs.close()
        _, memory = self._ask(max(1, TURNS * self._num_batches // 10))
        self.samples, self.seconds, self.memory = 0, 0.0, (memory, memory)

    def take_turn(self) -> None:
        """Loads a part of the samples."""
        seconds, memory = self._ask(self._num_batches)
        self.samples += self._num_batches * self._batch_size
        self.seconds += seconds
        self.memory = (self.memory[0], memory)

    @property
    def rate(self) -> float:
        """Samples for each second of a core."""
        return self.samples / self.seconds

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _ask(self, num_batches: int) -> tuple[float, int]:
        try:
            self._connection.send(num_batches)
            return self._connection.recv()
        except (EOFError, ConnectionError):
            raise InputError("a process that loads samples ended; out of memory?") from None


def serve(connection: Connection, config: ConfigDict, path: Path) -> None:
    """Loads as many batches as it is asked for, and answers with `Loader`'s seconds and bytes."""
    jax.config.update("jax_platforms", "cpu")  # two processes could not share a GPU's memory
    batches = pipeline.training_batches(config, open_clips(path, config.blur_variant))
    with contextlib.suppress(EOFError):
        while True:
            num_batches = connection.recv()
            start = seconds_when_idle()
            for _ in range(num_batches):
                next(batches)
            connection.send((seconds_when_idle() - start, peak_resident_bytes()))


def open_clips(path: Path, variant: str) -> ClipSource:
    """Opens all clips of a store, or of a folder, of which no decoded frame is kept."""
    if store.is_store(path):
        stored = store.open_store(path, variant).clips
        return ClipSource("store", stored, store.StoreReader(path, stored))
    found = folders.open_folder(path, variant)
    return ClipSource("folder", found, folders.FolderReader(found, cache_bytes=0))


def seconds_when_idle() -> float:
    """Returns the seconds of a core that the process took so far, once it takes no more.

    The threads that read ahead have then filled their buffer: between two such moments as many
    batches were made as were taken.
    """
    seconds = time.process_time()
    while True:
        time.sleep(0.2)
        before, seconds = seconds, time.process_time()
        if seconds - before < 0.002:
            return seconds


def line(name: str, path: Path, loader: Loader) -> str:
    """A line of the table."""
    disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    warm, end = (number / 1e6 for number in loader.memory)
    return (
        f"| {name} | {loader.rate:.1f} | {loader.samples} | {disk / 1e6:.0f} | {warm:.0f} "
        f"| {end:.0f} |"
    )


if __name__ == "__main__":
    main()
