"""Videos: the frames of a file, and the same file, or a folder of pictures, with restored ones."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxdeblur.errors import InputError
from jaxdeblur.media import sniffing
from jaxdeblur.media.coding import colours, left_out
from jaxdeblur.media.coding.decoding import Clip, Copied, blamed, decoded, opened
from jaxdeblur.media.coding.encoding import MUXERS, Writer
from jaxdeblur.runtime.atomic import replacing

if TYPE_CHECKING:
    from av import VideoFrame

SUFFIXES: tuple[str, ...] = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"),
    *(".3gp", ".3g2", ".mts", ".m2ts", ".m2t", ".m2v", ".vob", ".asf", ".mxf", ".ogv", ".f4v"),
)
"""Ends of the names of files that are taken for videos, in lower case."""

CONTAINERS: tuple[str, ...] = tuple(MUXERS)
"""Ends of the names that `transcode` can write."""

Frames = Iterable[np.ndarray]  # RGB uint8 [H, W, 3]
Restore = Callable[[Iterator[np.ndarray]], Frames]
StrPath = str | os.PathLike[str]


def holds_video(path: StrPath) -> bool:
    """Whether a file is a video: by its content, or, where that tells nothing, by its name."""
    path = Path(path)
    return sniffing.is_video(sniffing.head_of(path)) or path.suffix.lower() in SUFFIXES


def count_frames(path: StrPath) -> int | None:
    """Number of frames of the first video stream, as far as the header tells.

    Without a count in the header it is the duration times the average rate, so it can be off by a
    few frames: enough for a progress bar. None if the header tells neither.

    Raises:
      InputError: the file is missing, not a video, or has no video stream.
    """
    with opened(path) as clip:
        if clip.video.frames:
            return clip.video.frames
        rate, time_base = clip.video.average_rate, clip.video.time_base
        if clip.video.duration and time_base:
            seconds = clip.video.duration * time_base
        else:
            seconds = Fraction(clip.container.duration or 0, 10**6)
        return round(seconds * (rate or 0)) or None


def read_frames(path: StrPath) -> Iterator[np.ndarray]:
    """Decodes the first video stream frame by frame, in the order of presentation.

    Frames are RGB uint8 `[H, W, 3]` as stored: a display rotation is not applied, deeper samples
    are converted to 8 bits, transparency is dropped.

    Raises:
      InputError: the file is missing, not a video, cut short or damaged; the message names it and
        the frame (the first is 0).
    """
    with opened(path) as clip:
        for _, rgb in _decoded_rgb(clip):
            yield rgb.to_ndarray()


def transcode(
    source: StrPath,
    target: StrPath,
    restore: Restore,
    *,
    quality: int = 18,
    overwrite: bool = False,
) -> int:
    """Writes a video again with restored frames, whole or not at all.

    The picture is encoded as 8-bit H.264 (10-bit sources are converted) of the same size and the
    same resolution of colour. Time stamps, average rate, pixel aspect ratio, display rotation,
    crop, spherical mapping, arrangement of two views, colour tags, mastering display, light levels,
    closed captions, titles, dates, languages and chapters are kept, and audio is copied without
    encoding it again. So are subtitles and attachments where the container takes them. Matroska
    rounds time stamps to milliseconds. What is lost for good, such as other video streams, is
    logged.

    Args:
      source: video file.
      target: file to write, `.mp4`, `.m4v`, `.mov` or `.mkv`.
      restore: turns an iterator of frames, RGB uint8 `[H, W, 3]`, into as many of the same size.
      quality: x264's constant rate factor in 0..51; lower is better, 18 is hard to tell apart.
      overwrite: whether an existing target is replaced.

    Returns:
      Number of frames written.

    Raises:
      InputError: the source cannot be read, or the target cannot be written.
      ValueError: `restore` gave a wrong number of frames, or one of a wrong size or type.
    """
    target = Path(target)
    if not 0 <= quality <= 51:
        raise InputError(f"quality = {quality} is outside 0..51 (lower is better)")
    if target.suffix.lower() not in MUXERS:
        raise InputError(
            f"{target}: a {target.suffix or 'file without suffix'} cannot hold the restored "
            f"video; choose one of {', '.join(MUXERS)}"
        )
    count = 0
    with (
        opened(source) as clip,
        replacing(target, overwrite=overwrite, like=source) as partial,
        contextlib.closing(Writer(clip, target, partial, quality)) as writer,
        contextlib.closing(_restored(clip, restore, writer.copied)) as frames,
    ):
        for rgb in frames:
            writer.write(rgb)
            count += 1
        writer.finish()
    return count


def write_frames(
    source: StrPath, folder: StrPath, restore: Restore, *, overwrite: bool = False
) -> int:
    """Writes the restored frames of a video as `00000000.png`, `00000001.png`, ... of a folder.

    Every file is written whole. If the source turns out damaged, the frames before stay.

    Args:
      source: video file.
      folder: where to; it is made if only its last part is missing.
      restore: as for `transcode`.
      overwrite: whether existing frames are replaced. All frames pass through `restore` anyway,
        because a network for video needs the neighbours of the missing ones.

    Returns:
      Number of frames of the video.

    Raises:
      InputError: the source cannot be read, or the folder cannot be written to.
      ValueError: `restore` gave a wrong number of frames, or one of a wrong size or type.
    """
    from PIL import Image

    folder = Path(folder)
    if not (folder if folder.exists() else folder.parent).is_dir():
        raise InputError(f"{folder}: cannot be made; its parent is not a folder")
    count = 0
    with opened(source) as clip, contextlib.closing(_restored(clip, restore)) as frames:
        for rgb in frames:
            path = folder / f"{count:08d}.png"
            count += 1
            if path.exists() and not overwrite:
                continue
            with blamed(f"{path}: cannot be written"):
                folder.mkdir(exist_ok=True)
                with replacing(path, overwrite=True, like=source) as partial:
                    Image.fromarray(rgb.to_ndarray()).save(partial)
    return count


def _decoded_rgb(
    clip: Clip, copied: Copied | None = None
) -> Generator[tuple[VideoFrame, VideoFrame], None, None]:
    """Frames as they are stored and as RGB; logs what is lost of them."""
    tell, to_rgb = left_out.telling(clip), colours.to_rgb()
    for frame in decoded(clip, copied):
        tell(frame)
        with blamed(f"{clip.path}: its colour matrix {frame.colorspace} is not supported"):
            rgb = to_rgb(frame)
        yield frame, rgb


def _restored(
    clip: Clip, restore: Restore, copied: Copied | None = None
) -> Generator[VideoFrame, None, None]:
    """RGB frames with restored samples, and with all else of their source frames."""
    pending: collections.deque[VideoFrame] = collections.deque()

    def feed() -> Generator[np.ndarray, None, None]:
        for frame, rgb in _decoded_rgb(clip, copied):
            rgb.pts, rgb.duration = frame.pts, frame.duration
            pending.append(rgb)
            yield rgb.to_ndarray().copy()  # what is given away may be kept; the frame is filled

    with contextlib.closing(feed()) as frames:
        for image in restore(frames):
            if not pending:
                raise ValueError("restore returned more frames than it was given")
            rgb = pending.popleft()
            shape = (rgb.height, rgb.width, 3)
            if image.shape != shape or image.dtype != np.uint8:
                raise ValueError(
                    f"restore returned {image.dtype} {list(image.shape)} for uint8 {list(shape)}"
                )
            _fill(rgb, image)
            yield rgb
        # Reading on to the end also fetches the sound that follows the last frame.
        if next(frames, None) is not None or pending:
            raise ValueError("restore returned fewer frames than it was given")


def _fill(rgb: VideoFrame, image: np.ndarray) -> None:
    """Gives an RGB frame new samples, `[H, W, 3]`."""
    (plane,) = rgb.planes
    rows = np.zeros((rgb.height, plane.line_size), np.uint8)
    rows[:, : 3 * rgb.width] = image.reshape(rgb.height, -1)
    plane.update(rows.tobytes())
