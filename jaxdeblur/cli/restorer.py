"""What `jaxdeblur deblur` does with its files, one after the other, and what it tells of them."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdeblur.cli import comparison
from jaxdeblur.errors import InputError, one_line, printable
from jaxdeblur.media import lost
from jaxdeblur.runtime import atomic, paths
from jaxdeblur.runtime.atomic import ExistsError

if TYPE_CHECKING:
    import numpy as np

    from jaxdeblur.media.files import Job
    from jaxdeblur.media.photo import Photo
    from jaxdeblur.runtime.progress import ProgressLine

STREAM = "-"  # as an input or an output: the standard one

# Levels of 255, root mean square. `atrous-photo` changed 19 of 20 sharp photographs by less, all of
# them with a Gaussian blur of 1.5 pixels by 5 or more, frames of GoPro and REDS by 1.8 to 4.
_HARDLY = 2.5


class _Remarks(logging.Handler):
    """Passes on to a function what is logged: warnings, and each remark once."""

    def __init__(self, tell: Callable[[str, str], None]):
        super().__init__(logging.INFO)
        self._tell = tell
        self._remarks: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.levelno > logging.INFO:
            self._tell("warning: ", line)
            return
        if line not in self._remarks:
            self._tell("", line)
        # Of what is lost the number counts; how many tiles others had is of no interest.
        counted = record.name == lost.__name__
        self._remarks[line] = self._remarks.get(line, 0) + counted

    def told_once(self) -> Iterator[tuple[str, int]]:
        """The remarks that were true of several files, and of how many."""
        return ((line, count) for line, count in self._remarks.items() if count > 1)


class Restorer:
    """Restores one file after the other; a failure of one is told and does not stop the rest."""

    def __init__(self, arguments: argparse.Namespace):
        from jaxdeblur.weights import load

        dtype = None if arguments.dtype == "float32" else arguments.dtype
        self._deblurrer = load(arguments.model, dtype=dtype, effort=arguments.effort)
        self._arguments = arguments
        self._options = {
            "tile": arguments.tile,
            "self_ensemble": arguments.self_ensemble,
            "strength": arguments.strength,
        }
        self._progress: ProgressLine | None = None
        self._done = 0  # photographs, and frames of videos
        self._current = ""
        self._comparisons: list[tuple[float, ...]] = []  # see `comparison.measure`
        self._tidied: set[Path] = set()
        self._unheard = False  # whether standard output failed

    def report(self, line: str) -> None:
        """Tells something on standard error."""
        if self._progress:
            self._progress.print(line)
        else:
            print(printable(line), file=sys.stderr)

    @contextlib.contextmanager
    def log_told(self) -> Iterator[None]:
        """Tells what restoring logs, with the file's name."""
        handler = _Remarks(lambda kind, line: self.report(f"{kind}{self._current}: {line}"))
        logger = logging.getLogger("jaxdeblur")
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            for line, count in handler.told_once():
                self.report(f"true of {count} files: {line}")

    def all(self, jobs: list[Job]) -> int:
        """Restores all files; returns the number of those that failed."""
        from jaxdeblur.runtime.progress import ProgressLine

        failed = 0
        sizes = [_num_pictures(job) for job in jobs]
        with ProgressLine("deblurring", max(sum(sizes), 1)) as self._progress:
            for job, size in zip(jobs, sizes, strict=True):
                self._current = printable(job.source)
                try:
                    with _memory_told():
                        self._one(job)
                except ExistsError:  # before, or meanwhile, by another process
                    self._tell_exists(job)
                except InputError as error:
                    failed += 1
                    self.report(f"error: {_naming(job.source, error)}")
                self._done += size
                self._progress.update(self._done)
        self._progress = None
        if len(self._comparisons) > 1:
            self.report(comparison.mean_in_words(self._comparisons))
        return failed + self._unheard

    def stream(self) -> None:
        """Restores standard input to standard output, or to the file that `-o` names."""
        from jaxdeblur.media import photo, streams

        output = self._arguments.output
        self._current = "standard input"
        source, sink = sys.stdin, sys.stdout
        if source is None:
            raise InputError("standard input is closed; give a file, or send one through a pipe")
        target = None if output in (None, STREAM) else paths.local(output, "-o")
        if target:  # refuses before the work, as `output_format` does
            atomic.check_free(target, overwrite=self._arguments.overwrite)
        elif sink is None:
            raise InputError("standard output is closed; name a file with -o")
        blurred = photo.read(streams.read(source.buffer, self._current), name=self._current)
        suffix = target.suffix or None if target else None
        photo.output_format(blurred, suffix)
        with _memory_told():
            data = photo.encode(blurred, self._deblurrer(blurred.rgb, **self._options), suffix)
        if target:
            photo.write(target, data, overwrite=self._arguments.overwrite)
            return
        try:
            sink.buffer.write(data)
            sink.buffer.flush()
        except OSError as error:
            raise InputError(f"standard output cannot be written ({error})") from error

    def _one(self, job: Job) -> None:
        if self._arguments.output is not None:
            _make_folder(job.target.parent)
        self._tidy(job.target.parent)
        if _is_folder(job):
            self._tidy(job.target)
        else:
            self._check_free(job)
        (self._video if job.is_video else self._photo)(job)
        self._tell_done(job.target)

    def _check_free(self, job: Job) -> None:
        """Raises what writing the result would raise, before the work."""
        try:
            atomic.check_free(job.target, overwrite=self._arguments.overwrite)
        except ExistsError:
            if (
                self._arguments.side_by_side
                and not job.is_video
                and not os.path.exists(job.comparison)
            ):
                self._put_side_by_side(job)
            raise

    def _tidy(self, folder: Path) -> None:
        """Removes, once for a folder, what a killed run left in it."""
        if folder not in self._tidied:
            self._tidied.add(folder)
            atomic.remove_leftovers(folder)

    def _tell_exists(self, job: Job) -> None:
        self.report(f"{printable(job.target)}: exists, left as it is (--overwrite replaces it)")

    def _tell_done(self, target: Path) -> None:
        if sys.stdout is None or self._unheard:
            return
        if sys.stdout.isatty():  # through the progress bar, which would be torn otherwise
            self.report(str(target))
            return
        try:
            print(printable(target), flush=True)  # one line a result, whatever its name
        except OSError as error:  # a pipe that was closed, a full disk: the files are done anyway
            self._unheard = True
            self.report(f"error: standard output cannot be written ({error.strerror})")

    def _photo(self, job: Job) -> None:
        from jaxdeblur.media import photo

        blurred = photo.read(job.source)
        photo.output_format(blurred, job.target.suffix)  # refuses before the work
        sharp = self._sharp(job, blurred) if self._arguments.compare else None
        restored = self._deblurrer(blurred.rgb, **self._options)
        data = photo.encode(blurred, restored, job.target.suffix)
        overwrite = self._arguments.overwrite
        photo.write(job.target, data, overwrite=overwrite, like=job.source)
        if self._arguments.strength == 1:
            self._tell_if_hardly_changed(job, blurred.rgb, restored)
        pictures = [blurred.upright(blurred.rgb), blurred.upright(restored)]
        if sharp is not None:
            pictures.append(sharp)
            self._comparisons.append(comparison.measure(*pictures))
            self.report(f"{self._current}: {comparison.in_words(self._comparisons[-1])}")
        if self._arguments.side_by_side and (overwrite or not os.path.exists(job.comparison)):
            data = comparison.side_by_side(pictures)
            photo.write(job.comparison, data, overwrite=overwrite, like=job.source)

    def _put_side_by_side(self, job: Job) -> None:
        """Writes the comparison of a result that is there, as of a run that ended in between."""
        from jaxdeblur.media import photo

        blurred, restored = (photo.read(path) for path in (job.source, job.target))
        pictures = [picture.upright(picture.rgb) for picture in (blurred, restored)]
        if self._arguments.compare:
            pictures.append(self._sharp(job, blurred))
        data = comparison.side_by_side(pictures)
        photo.write(job.comparison, data, like=job.source)

    def _tell_if_hardly_changed(self, job: Job, blurred: np.ndarray, restored: np.ndarray) -> None:
        from jaxdeblur.restoring.scales import mean_square_change

        change = 255 * float(mean_square_change(blurred, restored)) ** 0.5
        if change >= _HARDLY:
            return
        others = "for a photograph out of focus --model atrous-photo"
        if self._deblurrer.module.reach is not None:  # no network that official weights are of
            others = "for a shaken photograph `jaxdeblur fetch maxim-gopro` and --model maxim-gopro"
        self.report(
            f"{self._current}: hardly changed, by {change:.1f} of 255 levels; it was sharp, or has "
            f"another blur: {others} may do more"
        )

    def _video(self, job: Job) -> None:
        from jaxdeblur.media import video

        if self._arguments.compare or self._arguments.side_by_side:
            self.report(
                f"warning: {self._current}: --compare and --side-by-side are for photographs"
            )

        def restore(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
            restored = self._deblurrer.frames(frames, **self._options)
            for number, frame in enumerate(restored, start=1):
                yield frame
                if self._progress:
                    self._progress.update(self._done + number)

        write = video.write_frames
        if not self._arguments.frames:
            write = functools.partial(video.transcode, quality=self._arguments.quality)
        write(job.source, job.target, restore, overwrite=self._arguments.overwrite)

    def _sharp(self, job: Job, blurred: Photo) -> np.ndarray:
        """The sharp photograph that a file is compared with, upright."""
        from jaxdeblur.media import photo

        path = self._arguments.compare
        if path.is_dir():
            path = comparison.partner(path / job.relative)
        original = photo.read(path)
        sharp = original.upright(original.rgb)
        size = blurred.upright(blurred.rgb).shape
        if sharp.shape != size:
            raise InputError(
                f"{printable(path)} is {sharp.shape[1]}x{sharp.shape[0]} pixels, {self._current} "
                f"{size[1]}x{size[0]}; --compare needs equal sizes"
            )
        return sharp


def _num_pictures(job: Job) -> int:
    """What a file counts on the progress bar: 1, or about as many as a video has frames."""
    from jaxdeblur.media import video

    try:
        return (job.is_video and video.count_frames(job.source)) or 1
    except InputError:  # told when its turn comes
        return 1


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    """Turns a failure of the device, which is one of memory, into an error for the user."""
    import jax

    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        reason = (str(error).splitlines() or ["out of memory"])[0]
        raise InputError(f"could not be restored ({reason}); try --tile 512") from error


def _is_folder(job: Job) -> bool:
    """Whether a result is made of many files, which are completed one by one."""
    return job.is_video and job.target.is_dir()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be made ({error.strerror})") from error


def _naming(source: Path, error: InputError) -> str:
    """The error as one line that names the file."""
    name = printable(source)
    line = one_line(str(error).replace(str(source), name))
    return line if name in line else f"{name}: {line}"
