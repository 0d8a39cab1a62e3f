"""Sharp photographs: a folder of image files, or the ones that scikit-image ships."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxdeblur.data.images import SUFFIXES, UNREADABLE, image_files, read_header, read_rgb
from jaxdeblur.data.patches import SharpImages
from jaxdeblur.data.source import Kind
from jaxdeblur.errors import InputError, naming_extra

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_log = logging.getLogger(__name__)

# Colour photographs inside the scikit-image package (other ones are downloaded).
_SKIMAGE_FILES = {
    "train": ["astronaut.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"],
    "val": ["chelsea.png", "coffee.png"],
}

_CACHE_BYTES = 2**30  # decoded photographs kept in memory


class Photos(SharpImages):
    """Photographs of any size as a sequence of uint8 `[H, W, 3]` RGB arrays.

    The files' headers are read at once. A file that is no readable image is left out, and one
    that turns out damaged when decoded is replaced by the next one; either is said once.

    Args:
      files: paths of the image files.
      name: what to call them in messages.
      title: what to call them in tables of results; by default the name.

    Raises:
      InputError: none of the files is a readable image.
    """

    def __init__(self, files: Sequence[Path], name: str, title: str = ""):
        self.name, self.title = name, title or name
        self._files: list[Path] = []
        self._sizes: list[tuple[int, int]] = []
        self._damaged: set[int] = set()
        for path in files:
            try:
                height, width, _ = read_header(path)
            except UNREADABLE as error:
                _log.warning("%s: left out, not a readable image (%s)", path, error)
                continue
            self._files.append(path)
            self._sizes.append((height, width))
        if not self._files:
            raise InputError(f"{name}: none of its {len(files)} files is a readable image")
        self.labels: list[str] = [path.name for path in self._files]
        kept = max(1, _CACHE_BYTES // max(3 * h * w for h, w in self._sizes))
        self._decode = functools.lru_cache(maxsize=kept)(self._decode_file)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(index)  # by which iteration ends
        for candidate in range(index, index + len(self)):
            image = self._decode(candidate % len(self))
            if image is not None:
                return image
        raise InputError(f"{self.name}: every image is damaged")

    def sizes(self) -> list[int]:
        """The bytes of each file; 0 where it is gone."""
        return [path.stat().st_size if path.is_file() else 0 for path in self._files]

    def smallest_size(self) -> tuple[int, int, str]:
        """Height and width of the photograph with the shortest side, and its path."""
        shortest = min(range(len(self)), key=lambda i: min(self._sizes[i]))
        return (*self._sizes[shortest], str(self._files[shortest]))

    def _decode_file(self, index: int) -> np.ndarray | None:
        path = self._files[index]
        try:
            return read_rgb(path)
        except UNREADABLE as error:
            if index not in self._damaged:
                self._damaged.add(index)
                _log.warning("%s: damaged, another image takes its place (%s)", path, error)
            return None


def photo_folder(data_dir: str | os.PathLike[str], split: str) -> Photos:
    """Opens one split of a folder of photographs.

    With subfolders `train` and `val` (and, if there is one, `test`), those are the splits; without,
    every tenth file is held out. Folders are searched recursively.

    Args:
      data_dir: the folder.
      split: "train", "val" or "test"; without a `test` folder, the last is "val".

    Raises:
      InputError: the folder does not exist or has no images for the split.
    """
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise InputError(f"data_dir = {str(data_dir)!r} is not a folder; give one of photographs")
    if split == "test" and not (root / "test").is_dir():
        split = "val"
    if (root / "train").is_dir():
        files = image_files(root / split) if (root / split).is_dir() else []
        where, title = str(root / split), f"photos {split}"
    else:
        files = [f for i, f in enumerate(image_files(root)) if (i % 10 == 9) == (split != "train")]
        remark = f"({split}: every tenth file is held out)"
        where, title = f"{root} {remark}", f"photos {remark}"
    if not files:
        raise InputError(
            f"{where} holds no images; put {', '.join(SUFFIXES)} files there (at least 10, or "
            "subfolders train and val)"
        )
    return Photos(files, where, title)


def skimage_photos(split: str) -> Photos:
    """The colour photographs that ship with scikit-image: four to train on, two held out."""
    with naming_extra():
        import skimage

    folder = Path(skimage.__file__).parent / "data"
    names = _SKIMAGE_FILES["train" if split == "train" else "val"]
    return Photos([folder / name for name in names], f"scikit-image {split} photographs")


def _open_folder(config: ConfigDict, split: str) -> Photos:
    return photo_folder(config.data_dir, split)


def _open_skimage(config: ConfigDict, split: str) -> Photos:
    del config
    return skimage_photos(split)


FOLDER = Kind(_open_folder, lies_in=lambda folder: Path(folder).expanduser().is_dir())
SKIMAGE = Kind(_open_skimage)
