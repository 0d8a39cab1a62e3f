"""The files of a folder and its subfolders."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path


def files_below(folder: Path, unreadable: Callable[[OSError], None]) -> list[Path]:
    """Lists files, sorted by path; hidden ones, and those of hidden folders, are left out.

    Links to files are followed, links to folders are not.

    Args:
      folder: searched with all its subfolders.
      unreadable: is given what cannot be read: a folder, a file in a folder that may be listed but
        not entered, a link that leads nowhere. `filename` and `strerror` of the error tell it.
    """
    found = []
    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = (name for name in folders if not name.startswith("."))
        for name in names:
            file = Path(root, name)
            try:
                if not name.startswith(".") and stat.S_ISREG(file.stat().st_mode):
                    found.append(file)
            except OSError as error:
                unreadable(error)
    return sorted(found)
