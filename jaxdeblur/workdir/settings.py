"""`config.json` and `data.json` of a workdir: the configuration of its run, and what it began with.

To the one the workdir belongs; the other tells how many steps the run makes and what its data were.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdeblur.errors import InputError
from jaxdeblur.runtime import atomic

FILE = "config.json"  # in a workdir
_DATA_FILE = "data.json"

# Keys that do not change the parameters a run ends with: they may differ when it goes on.
_FREE_KEYS = (
    "checkpoint_every_steps",
    "compilation_cache",
    "data_dir",
    "effort",
    "eval_batch_size",
    "eval_every_steps",
    "eval_patch_size",
    "eval_repeats",
    "log_every_steps",
    "photo_dir",
    "shard_state",
    "tile",
)


def check(workdir: Path, config: Mapping[str, Any]) -> None:
    """Checks that a workdir is new and can be made, or that its run has the same configuration.

    Raises:
      InputError: it cannot, or is of another one.
    """
    old = _read(workdir / FILE)
    if old is None:
        _check_place(workdir)
        return
    config = json.loads(json.dumps(config))  # which has lists for tuples
    for key, value in config.items():
        if key in _FREE_KEYS or (key in old and old[key] == value):
            continue
        held = f"config.{key} = {_short(old[key])}" if key in old else f"no config.{key}"
        raise InputError(
            f"workdir = {str(workdir)!r} holds a run with {held}, not {_short(value)}; "
            "use another --workdir, or the same configuration to go on"
        )


def claim(workdir: Path, config: Mapping[str, Any]) -> None:
    """Makes a workdir, and writes `config.json` unless it is there.

    Raises:
      InputError: it cannot be written.
    """
    try:
        (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
        _write_once(workdir / FILE, config)
    except (OSError, InputError) as error:
        raise InputError(f"workdir = {str(workdir)!r} cannot be written ({error})") from error


def read(workdir: Path) -> dict[str, Any]:
    """Reads the configuration of a run.

    Raises:
      InputError: the folder is not the workdir of a run, or its `config.json` is damaged.
    """
    config = _read(workdir / FILE)
    if config is None:
        raise InputError(f"workdir = {str(workdir)!r} holds no run (no {FILE})")
    return config


def begun_with(workdir: Path) -> dict[str, Any] | None:
    """What `note_data` has written of the run; None where it is an older one, or new.

    Raises:
      InputError: it is damaged.
    """
    found = _read(workdir / _DATA_FILE)
    if found is None:
        return None
    steps, data = found.get("num_steps"), found.get("data")
    if type(steps) is not int or not 0 < steps < 2**31 or not isinstance(data, dict):
        raise InputError(f"{workdir / _DATA_FILE} is damaged; remove it to go on without")
    return found


def note_data(workdir: Path, num_steps: int, data: Mapping[str, Any]) -> None:
    """Writes what a run begins with, unless that is there: its steps, and what tells its data.

    Raises:
      InputError: it cannot be written.
    """
    _write_once(workdir / _DATA_FILE, {"num_steps": num_steps, "data": data})


def _check_place(workdir: Path) -> None:
    """Tells of a place where nothing can be written before anything has been computed for it."""
    there = next(path for path in (workdir, *workdir.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        what = f"{there} is no folder"
    elif not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        what = f"no permission to write to {there}"
    else:
        return
    raise InputError(f"workdir = {str(workdir)!r} cannot be written ({what}); use another place")


def _write_once(path: Path, content: Mapping[str, Any]) -> None:
    try:
        with atomic.replacing(path, overwrite=False) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n")
    except atomic.ExistsError:
        pass


def _read(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no file."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); use a new workdir") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it or use a new workdir") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is damaged (it holds no JSON object); restore it or use a new workdir"
        )
    return content


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
