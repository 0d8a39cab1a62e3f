"""The folders of images below a folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxdeblur.data.images import is_image


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """A folder that holds images.

    Attributes:
      path: of the folder.
      images: by their names without suffix.
      repeated: files whose name differs from another one's only in the suffix.
      others: number of other files.
    """

    path: Path
    images: dict[str, Path]
    repeated: list[str]
    others: int


def image_folders(root: Path, unreadable: Callable[[OSError], None]) -> Iterator[ImageFolder]:
    """Finds the folders that hold images, by path; hidden ones are left out, links are followed.

    Args:
      root: searched with all its subfolders.
      unreadable: is given what cannot be read.
    """
    # A link to a folder that is being searched, or that lies around it, would be followed for ever.
    searched: dict[str, frozenset[Path]] = {}
    for path, folders, files in os.walk(root, onerror=unreadable, followlinks=True):
        here = Path(path).resolve()
        around = searched.pop(path, frozenset()) | {here}
        below = {name: Path(path, name).resolve() for name in folders if not name.startswith(".")}
        folders[:] = sorted(
            name
            for name, real in below.items()
            if not any(folder.is_relative_to(real) for folder in around)
        )
        searched.update((os.path.join(path, name), around) for name in folders)
        names = sorted(name for name in files if not name.startswith("."))
        found = [Path(path, name) for name in names if is_image(name)]
        images = {file.stem: file for file in found}
        repeated = [file.name for file in found if images[file.stem] != file]
        if images:
            yield ImageFolder(Path(path), images, repeated, len(names) - len(found))
