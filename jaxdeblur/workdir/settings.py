"""`config.json` of a workdir: the configuration of its run, to which the workdir belongs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdeblur.errors import InputError

_FILE = "config.json"  # in a workdir

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
    """Checks that a workdir is new, or that its run has the same configuration.

    Raises:
      InputError: it is of another one.
    """
    if not (workdir / _FILE).exists():
        return
    old = read(workdir)
    config = json.loads(json.dumps(config))  # which has lists for tuples
    differing = [key for key in config if key not in _FREE_KEYS and old.get(key) != config[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"workdir = {str(workdir)!r} holds a run with config.{key} = {old.get(key)!r}, not "
            f"{config[key]!r}; use another --workdir, or the same configuration to go on"
        )


def claim(workdir: Path, config: Mapping[str, Any]) -> None:
    """Makes a workdir, and writes `config.json` unless it is there.

    Raises:
      InputError: it cannot be written.
    """
    path = workdir / _FILE
    try:
        (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
        if not path.exists():
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(config, indent=2) + "\n")
            partial.rename(path)
    except OSError as error:
        raise InputError(f"workdir = {str(workdir)!r} cannot be written ({error})") from error


def read(workdir: Path) -> dict[str, Any]:
    """Reads the configuration of a run.

    Raises:
      InputError: the folder is not the workdir of a run, or its `config.json` is damaged.
    """
    path = workdir / _FILE
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict):
            raise ValueError("it holds no configuration")
    except OSError as error:
        raise InputError(f"workdir = {str(workdir)!r} holds no run (no config.json)") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); restore it or use a new workdir") from error
    return config
