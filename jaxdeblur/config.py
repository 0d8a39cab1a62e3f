"""Checks of a configuration's values; its keys are documented in `configs/default.py`."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from jaxdeblur import metrics
from jaxdeblur.data import degrade, pipeline
from jaxdeblur.data.blur import kernel_radius
from jaxdeblur.errors import InputError, nearest, reported
from jaxdeblur.losses import LOSSES
from jaxdeblur.models import create_model

_CHOICES = {
    "dataset": ("cifar10", "photos", "skimage", *pipeline.CLIPS),
    "degradation": ("gaussian", "camera"),
    "dtype": ("float32", "bfloat16"),
    "grad_clip": ("each", "global"),
    "loss": tuple(LOSSES),
    "schedule": ("constant", "cosine"),
}

_AT_LEAST = {
    "adam_b2": 0,
    "batch_size": 1,
    "brightness": 0,
    "checkpoint_every_steps": 1,
    "ema_decay": 0,
    "eval_batch_size": 1,
    "eval_every_steps": 1,
    "eval_repeats": 1,
    "frame_shift": 0,
    "grad_accum_steps": 1,
    "grad_clip_norm": 0,
    "learning_rate": 0,
    "log_every_steps": 1,
    "max_sigma": 0,
    "min_sigma": 0,
    "num_epochs": 0,
    "num_steps": 0,
    "patch_size": 1,
    "photo_share": 0,
    "seed": 0,
    "warmup_steps": 0,
}

_FILE = "config.json"  # in a workdir

# Keys that do not change the parameters a run ends with: they may differ when it goes on.
_FREE_KEYS = (
    "checkpoint_every_steps",
    "compilation_cache",
    "data_dir",
    "eval_batch_size",
    "eval_every_steps",
    "eval_patch_size",
    "eval_repeats",
    "log_every_steps",
    "photo_dir",
    "shard_state",
)


def check(config: ConfigDict) -> None:
    """Checks every value by itself and against the devices.

    Raises:
      InputError: names the key, its value and what it may be.
    """
    values: dict[str, Any] = config.to_dict()
    for key, choices in _CHOICES.items():
        if values[key] not in choices:
            raise InputError(f"config.{key} = {values[key]!r}; {nearest(values[key], choices)}")
    for key, minimum in _AT_LEAST.items():
        if not (math.isfinite(values[key]) and values[key] >= minimum):
            raise InputError(f"config.{key} = {values[key]!r} must be at least {minimum}")
    if config.min_sigma > config.max_sigma:
        raise InputError(
            f"config.min_sigma = {config.min_sigma} is above config.max_sigma = {config.max_sigma}"
        )
    for key in ("adam_b2", "ema_decay"):
        if values[key] >= 1:
            raise InputError(f"config.{key} = {values[key]} must be below 1, such as 0.999")
    if config.photo_share > 1:
        raise InputError(f"config.photo_share = {config.photo_share} must be at most 1, a share")
    if not config.num_steps and not config.num_epochs:
        raise InputError("config.num_steps and config.num_epochs are both 0; set one of them")
    devices, parts = jax.device_count(), config.grad_accum_steps
    for key, divisor, what in (
        ("batch_size", devices * parts, f"the {devices} devices"),
        ("eval_batch_size", devices, f"the {devices} devices"),
    ):
        if parts > 1 and key == "batch_size":
            what += f" times config.grad_accum_steps = {parts}"
        if values[key] % divisor:
            raise InputError(
                f"config.{key} = {values[key]} is not divisible by {what}; "
                f"try {math.ceil(values[key] / divisor) * divisor}"
            )
    degrade.Camera(**config.camera)
    _check_patches(config)


def _check_patches(config: ConfigDict) -> None:
    module = create_model(config.model, **config.model_kwargs)
    if not config.eval_patch_size:
        if config.dataset not in pipeline.CLIPS:
            raise InputError(
                f"config.eval_patch_size = 0, whole frames, is for clips; {config.dataset} needs "
                "a size in pixels"
            )
        if config.eval_repeats > 1:
            raise InputError(
                f"config.eval_repeats = {config.eval_repeats}, but every time would be the same: "
                "config.eval_patch_size = 0 evaluates whole frames; set 1"
            )
    elif config.eval_patch_size < metrics.SSIM_WINDOW:
        raise InputError(
            f"config.eval_patch_size = {config.eval_patch_size} must be at least "
            f"{metrics.SSIM_WINDOW}, the window of SSIM, or 0 for whole frames of clips"
        )
    for key in ("patch_size", "eval_patch_size"):
        size = config[key]
        if not size and key == "eval_patch_size":
            continue
        if size <= kernel_radius(config.max_sigma):
            raise InputError(
                f"config.{key} = {size} is too small for config.max_sigma = {config.max_sigma}; "
                f"{kernel_radius(config.max_sigma) + 1} pixels at least"
            )
        if size % module.size_multiple or size < module.minimum_size:
            raise InputError(
                f"config.{key} = {size} does not fit {config.model}: a multiple of "
                f"{module.size_multiple}, {module.minimum_size} at least"
            )


def check_workdir(workdir: Path, config: ConfigDict) -> None:
    """Checks that a workdir is new, or that its run has the same configuration.

    Raises:
      InputError: it is of another one.
    """
    if not (workdir / _FILE).exists():
        return
    old, new = read_config(workdir).to_dict(), config.to_dict()
    differing = [key for key in new if key not in _FREE_KEYS and old.get(key) != new[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"workdir = {str(workdir)!r} holds a run with config.{key} = {old.get(key)!r}, not "
            f"{new[key]!r}; use another --workdir, or the same configuration to go on"
        )


def claim_workdir(workdir: Path, config: ConfigDict) -> None:
    """Makes a workdir, and writes `config.json` unless it is there.

    Raises:
      InputError: it cannot be written.
    """
    path = workdir / _FILE
    try:
        (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
        if not path.exists():
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
            partial.rename(path)
    except OSError as error:
        raise InputError(f"workdir = {str(workdir)!r} cannot be written ({error})") from error


def read_config(workdir: Path) -> ConfigDict:
    """Reads the configuration of a run.

    Raises:
      InputError: the folder is not the workdir of a run, or its `config.json` is damaged.
    """
    path = workdir / _FILE
    try:
        return ConfigDict(json.loads(path.read_text())).lock()
    except OSError as error:
        raise InputError(f"workdir = {str(workdir)!r} holds no run (no config.json)") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); restore it or use a new workdir") from error


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line of a script: the `flags_parser` of `absl.app.run`.

    A wrong flag, an unknown key or a value of the wrong type ends the process with one line that
    names it and status 2.
    """
    logging.set_verbosity(logging.WARNING)
    # Orbax logs what it raises as well, with tracebacks.
    logging.get_absl_logger().setLevel("CRITICAL")
    with reported():
        try:
            rest = flags.FLAGS(argv)
            if not flags.FLAGS.help:
                flags.FLAGS.config.lock()  # a file that failed to load says so on first use
        except AttributeError as error:  # a key that the locked ConfigDict does not have
            raise InputError(_unknown_key(str(error))) from error
        except (flags.Error, TypeError, OSError) as error:
            raise InputError(error) from error
        if flags.FLAGS.help:
            app.usage(shorthelp=True)
            raise SystemExit(0)
        if len(rest) > 1:
            raise InputError(f"unexpected argument {rest[1]!r}; flags begin with --")
        return rest


def _unknown_key(message: str) -> str:
    suggestion = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', message)
    if suggestion:
        return f"configuration key {suggestion[2]!r} is unknown; did you mean {suggestion[1]!r}?"
    return f"unknown configuration key: {message}; configs/default.py lists them"
