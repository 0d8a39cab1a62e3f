"""Which folders of a workdir are checkpoints: `checkpoints/STEP`."""

from __future__ import annotations

import os
from pathlib import Path

from jaxdeblur.errors import InputError


def step_of(name: str) -> int | None:
    """The step of the checkpoint in a folder of that name; None for any other folder.

    A step is written in the digits 0 to 9, without zeros in front: what Python takes for a number
    besides, such as "0099", names a folder that no step leads back to.
    """
    if not (name.isascii() and name.isdecimal() and len(name) < 19):
        return None
    return int(name) if str(int(name)) == name else None


def steps(workdir: Path) -> list[int]:
    """The steps of a workdir's checkpoints, in order.

    Raises:
      InputError: what is there cannot be listed.
    """
    # What is being written, and what was set aside, has a longer name.
    found = (step_of(name) for name in _folders(workdir))
    return sorted(step for step in found if step is not None)


def _folders(workdir: Path) -> list[str]:
    folder = workdir / "checkpoints"
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        if not os.path.lexists(workdir / "checkpoints"):
            return []  # the workdir is no folder, which others tell
        raise InputError(
            f"{str(folder)!r} should be the folder of the checkpoints, and cannot be listed "
            f"({error.strerror}); move it away, or use another workdir"
        ) from error


def check_names(workdir: Path) -> None:
    """Tells of checkpoints that do not count because of their names; for where there are no others.

    Raises:
      InputError: names the first one.
    """
    for name in sorted(_folders(workdir)):
        if name.isdigit() and step_of(name) is None:
            raise InputError(
                f"{str(workdir / 'checkpoints' / name)!r} has no name of a checkpoint, such as 99 "
                "or 1000; rename it to its step, or move it away"
            )
