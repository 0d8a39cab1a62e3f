"""Checks of a configuration's values; its keys are documented in `configs/default.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxdeblur import metrics
from jaxdeblur.configs import default
from jaxdeblur.data.blur import kernel_radius
from jaxdeblur.data.datasets import DATASETS
from jaxdeblur.data.degrade import Camera
from jaxdeblur.data.scenes import Scene
from jaxdeblur.errors import InputError, nearest
from jaxdeblur.losses import LOSSES
from jaxdeblur.models import create_model

_CHOICES = {
    "dataset": DATASETS,
    "degradation": ("gaussian", "camera", "scene"),
    "dtype": ("float32", "bfloat16"),
    "grad_clip": ("each", "global"),
    "loss": LOSSES,
    "schedule": ("constant", "cosine"),
}

_AT_LEAST = {
    "adam_b1": 0,
    "adam_b2": 0,
    "batch_size": 1,
    "brightness": 0,
    "checkpoint_every_steps": 1,
    "effort": 0,
    "ema_decay": 0,
    "eval_batch_size": 1,
    "eval_every_steps": 1,
    "eval_repeats": 1,
    "final_learning_rate": 0,
    "frame_shift": 0,
    "grad_accum_steps": 1,
    "grad_clip_norm": 0,
    "learning_rate": 0,
    "log_every_steps": 1,
    "max_sigma": 0,
    "min_sigma": 0,
    "mixup": 0,
    "num_epochs": 0,
    "num_steps": 0,
    "patch_size": 1,
    "photo_share": 0,
    "seed": 0,
    "warmup_steps": 0,
    "weight_decay": 0,
}


_KINDS = {
    bool: "True or False",
    dict: "an object of keys",
    float: "a number",
    int: "a whole number",
    str: "a text",
}

_WIDEST_BLUR = 1000  # pixels, beyond every picture's patch
_MOST_PIXELS = 2**38  # of a batch, beyond every machine's memory

# Whole numbers: those that 32 bits hold, as a step's number does. A seed has one bit more.
_MOST_SEED = 2**32 - 1


def check(config: ConfigDict) -> None:
    """Checks every value by itself and against the devices.

    Raises:
      InputError: names the key, its value and what it may be.
    """
    values: dict[str, Any] = config.to_dict()
    _check_types(values, default.get_config().to_dict())
    for key, choices in _CHOICES.items():
        if values[key] not in choices:
            raise InputError(f"config.{key} = {values[key]!r}; {nearest(values[key], choices)}")
    for key, minimum in _AT_LEAST.items():
        if not values[key] >= minimum:
            raise InputError(f"config.{key} = {values[key]!r} must be at least {minimum}")
    if config.max_sigma > _WIDEST_BLUR:
        raise InputError(f"config.max_sigma = {config.max_sigma} must be at most {_WIDEST_BLUR}")
    if config.min_sigma > config.max_sigma:
        raise InputError(
            f"config.min_sigma = {config.min_sigma} is above config.max_sigma = {config.max_sigma}"
        )
    for key in ("adam_b1", "adam_b2", "ema_decay"):
        if values[key] >= 1:
            raise InputError(f"config.{key} = {values[key]} must be below 1, such as 0.999")
    for key, what in (("photo_share", "a share"), ("mixup", "a probability")):
        if values[key] > 1:
            raise InputError(f"config.{key} = {values[key]} must be at most 1, {what}")
    if config.tile not in ("auto", "off") and not config.tile.isdecimal():
        raise InputError(f"config.tile = {config.tile!r} must be auto, off or a number of pixels")
    if config.num_frames not in (1, 3):
        raise InputError(f"config.num_frames = {config.num_frames} must be 1 or 3")
    if config.photo_dir and config.num_frames == 1 and config.degradation == "gaussian":
        raise InputError(
            "config.degradation = 'gaussian' is made in the step, where frames of clips are not "
            "blurred; with config.photo_dir and single frames set 'scene' or 'camera'"
        )
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
    for batch, patch in (("batch_size", "patch_size"), ("eval_batch_size", "eval_patch_size")):
        if values[batch] * values[patch] ** 2 > _MOST_PIXELS:
            raise InputError(
                f"config.{batch} = {values[batch]} of config.{patch} = {values[patch]} pixels is "
                "more than any memory holds; lower one of them"
            )
    Camera(**config.camera)
    Scene(**config.scene)
    _check_patches(config)


def _check_types(values: Mapping[str, Any], defaults: Mapping[str, Any], place: str = "") -> None:
    """Compares keys and types with those of `configs/default.py`.

    A file that makes a configuration of its own has the keys that it likes, and a file of another
    version those of then.
    """
    for key in values:
        if key not in defaults:
            raise InputError(f"config.{place}{key} is unknown; {nearest(key, defaults)}")
    for key, default_value in defaults.items():
        name = f"config.{place}{key}"
        if key not in values:
            raise InputError(f"{name} is missing; begin with configs/default.py, as all files do")
        value, due = values[key], type(default_value)
        fitting = (int, float) if due is float else due
        if not isinstance(value, fitting) or (isinstance(value, bool) and due is not bool):
            raise InputError(f"{name} = {_short(value)} must be {_KINDS[due]}")
        most = _MOST_SEED if name == "config.seed" else 2**31 - 1
        if isinstance(value, int) and value > most:
            raise InputError(f"{name} = {_short(value)} must be at most {most}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name} = {value!r} must be finite, such as {default_value!r}")
        if isinstance(value, dict) and key != "model_kwargs":
            _check_types(value, default_value, f"{key}.")


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "that number"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_patches(config: ConfigDict) -> None:
    module = _network(config)
    if not (config.eval_patch_size or DATASETS[config.dataset].has_whole):
        raise InputError(
            f"config.eval_patch_size = 0, whole frames, is for clips; {config.dataset} needs "
            "a size in pixels"
        )
    if not config.eval_patch_size and config.eval_repeats > 1:
        raise InputError(
            f"config.eval_repeats = {config.eval_repeats}, but every time would be the same: "
            "config.eval_patch_size = 0 evaluates whole frames; set 1"
        )
    if 0 < config.eval_patch_size < metrics.SSIM_WINDOW:
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


def _network(config: ConfigDict) -> Any:
    if "dtype" in config.model_kwargs:
        raise InputError(
            f"config.model_kwargs.dtype = {_short(config.model_kwargs.dtype)} is not set there; "
            "set config.dtype"
        )
    try:
        return create_model(config.model, **config.model_kwargs)
    except TypeError as error:  # of a field such as "name", which calls have themselves
        raise InputError(
            f"config.model_kwargs = {_short(config.model_kwargs.to_dict())} has a field that no "
            "network has"
        ) from error
