"""Restores pictures of any size: in tiles, at several scales, and only what is plausible."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxdeblur.convolutions import shares
from jaxdeblur.errors import InputError
from jaxdeblur.models.layers import current_frame
from jaxdeblur.models.variables import needed
from jaxdeblur.pixels import check_range, from_float, to_float
from jaxdeblur.restoring import tiling
from jaxdeblur.restoring.flat import keep_flat
from jaxdeblur.restoring.plausible import LIMITED_SIDE, implausible
from jaxdeblur.restoring.scales import bands, restore_scales
from jaxdeblur.runtime.startup import inference_options, quick_compilation_options

_log = logging.getLogger(__name__)

# A network's temporary arrays, in units of its widest layer's output: 5 to 15 by XLA's count (the
# `memory_analysis` of a call compiled for 256x256 to 768x768), CARLO_NET's most.
_LAYERS_ALIVE = 15
_DEFAULT_BYTES = 4 * 2**30  # where the device does not tell how much it has
_MEMORY_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class Options:
    """How to restore.

    Attributes:
      tile: side of square tiles in pixels, "auto" for tiles that fit the memory, "off" for none.
      self_ensemble: average over the picture's 8 flips and turns; takes 8 times as long.
      strength: 0 gives the blurred picture back, 1 the restored one, in between a mixture.
      scales: how many times the picture is shrunk for further passes, in order; see
        `scales.restore_scales`.
    """

    tile: tiling.Tile = "auto"
    self_ensemble: bool = False
    strength: float = 1.0
    scales: tuple[int, ...] = ()

    def __post_init__(self):
        if not (self.tile in ("auto", "off") or (type(self.tile) is int and self.tile > 0)):
            raise InputError(f"tile = {self.tile!r} must be 'auto', 'off' or a number of pixels")
        number = isinstance(self.strength, int | float | np.number)
        if not (number and 0 <= self.strength <= 1):
            raise InputError(f"strength = {self.strength!r} must be between 0 and 1")
        several = isinstance(self.scales, tuple | list)
        if not (several and all(type(scale) is int and scale > 1 for scale in self.scales)):
            raise InputError(f"scales = {self.scales!r} must be whole numbers above 1, such as 4")


def restore(
    module: nn.Module,
    variables: Any,
    blurred: np.ndarray,
    options: Options,
    limits: Mapping[str, float] | None,
) -> np.ndarray:
    """Restores one picture or a batch.

    Args:
      module: the network.
      variables: its variables.
      blurred: `[H, W, C]` or `[B, H, W, C]` of any size; uint8, uint16, or float in [0, 1].
      options: how to restore.
      limits: see `plausible.implausible`; None for the network's own result, whatever it is.

    Returns:
      The restored pictures with 3 channels, clipped, of the input's type. A tile whose result is
      implausible is the input's, and a warning is logged that names it. What is flat stays so
      (`flat.keep_flat`).

    Raises:
      InputError: scales for a network of video mode, or floats outside [0, 1].
    """
    check_range(blurred, "blurred")
    _tell_not_finite(blurred)
    before = current_frame(blurred)
    if options.strength == 0 or not blurred.size:
        return np.array(before)
    if options.scales and blurred.shape[-1] != 3:
        raise InputError(
            f"scales = {options.scales} are for networks of image mode; this one sees three frames"
        )

    # What is mixed with something is clipped afterwards.
    mixed = options.self_ensemble or options.strength < 1
    clipped = not mixed or bool(options.scales)

    def restore_view(view: np.ndarray, telling: bool = True) -> np.ndarray:
        def once(pictures: np.ndarray) -> np.ndarray:
            how = {"clipped": clipped, "telling": telling}
            return _restore_tiles(module, variables, pictures, options.tile, limits, **how)

        return restore_scales(once, view, options.scales)

    if options.self_ensemble:
        restored = _mean_over_turns(restore_view, blurred)
    elif mixed:
        restored = restore_view(to_float(blurred))
    else:
        restored = restore_view(blurred)
    if limits is not None:
        keep_flat(before, restored)
    if options.strength < 1:
        _mix(before, restored, options.strength)
    return from_float(restored, blurred.dtype) if mixed else restored


def _tell_not_finite(blurred: np.ndarray) -> None:
    """Names pixels that no network can make something of."""
    if np.issubdtype(blurred.dtype, np.integer):
        return
    wrong = ~np.isfinite(blurred)
    if wrong.any():
        *_, row, column, _ = np.argwhere(wrong)[0].tolist()
        count = int(wrong.any(-1).sum())
        which = "1 pixel that is" if count == 1 else f"{count} pixels that are"
        _log.warning("has %s NaN or infinite, first at row %d, column %d", which, row, column)


def _mean_over_turns(restore_view: Callable[..., np.ndarray], blurred: np.ndarray) -> np.ndarray:
    """The mean over the 8 flips and turns, each restored as if it were given; not clipped."""
    total = np.zeros((*blurred.shape[:-1], 3), np.float32)
    for flipped, turns in itertools.product((False, True), range(4)):

        def turned(x: np.ndarray, flipped=flipped, turns=turns) -> np.ndarray:
            return np.rot90(x[..., ::-1, :] if flipped else x, turns, (-3, -2))

        # Told once: in a turned picture a tile's place says nothing.
        view = to_float(np.ascontiguousarray(turned(blurred)))
        turned(total)[...] += restore_view(view, telling=not (flipped or turns))
    return total / 8


def _mix(before: np.ndarray, restored: np.ndarray, strength: float) -> None:
    """Takes back a part of the change of float pictures, in place."""
    for rows in bands(before.shape[-3]):
        was = to_float(before[..., rows, :, :])
        restored[..., rows, :, :] = was + strength * (restored[..., rows, :, :] - was)


def _restore_tiles(
    module: nn.Module,
    variables: Any,
    blurred: np.ndarray,
    tile: tiling.Tile,
    limits: Mapping[str, float] | None,
    *,
    clipped: bool = True,
    telling: bool = True,
) -> np.ndarray:
    """Restores pictures at their own size, once.

    Args:
      module: and the next ones as of `restore`.
      clipped: give the input's type; else float32 as the network has it.
      telling: log what there is to tell.
    """
    single = blurred.ndim == 3
    pictures = blurred[None] if single else blurred
    shape = (*pictures.shape[:3], 3)
    budget = pixels_at_once(module, blurred.shape[-1])
    plan = tiling.plan(module, pictures.shape[1:3], tile, single=single, budget=budget)
    if telling and plan.blended and (count := len(plan.rows) * len(plan.columns)) > 1:
        _log.info("%d tiles of %dx%d pixels, blended where they overlap", count, *plan.shape[::-1])
    # What tiles give is added up where they are blended, and is final where they are not.
    in_place = clipped and not plan.blended
    restored = np.empty(shape, blurred.dtype) if in_place else np.zeros(shape, np.float32)
    tiles = list(itertools.product(range(len(pictures)), plan.rows, plan.columns))
    # Tiles that are blended are large, and fill a device by themselves.
    alone = single or plan.blended
    at_once = 1 if alone else max(min(len(tiles), budget // math.prod(plan.shape)), 1)
    at_once = _for_devices(at_once, len(tiles), module, plan.shape)
    for start in range(0, len(tiles), at_once):
        chosen = tiles[start : start + at_once]
        windows = np.stack([tiling.window(pictures[i], r, c, plan.shape) for i, r, c in chosen])
        missing = at_once - len(chosen)  # a batch of another size would be another program
        filled = np.concatenate([windows, np.repeat(windows[-1:], missing, axis=0)])
        results = _apply(module, variables, to_float(filled))
        for (i, rows, columns), window, result in zip(chosen, windows, results, strict=False):
            if limits is not None:
                judged = plan.grown(rows, columns, LIMITED_SIDE, shape[1:3])
                before = to_float(current_frame(window))
                if reason := implausible(before[judged], result[judged], limits):
                    result = before
                    if telling:
                        _log.warning("%s left as they were: %s", _place(rows, columns), reason)
            part = result[rows.inside, columns.inside]
            target = restored[i, rows.first : rows.stop, columns.first : columns.stop]
            if in_place:
                target[...] = from_float(part, blurred.dtype)
            else:
                target += part * tiling.weight_of(rows, columns)
    if clipped and not in_place:
        total, restored = restored, np.empty(shape, blurred.dtype)
        for band in bands(shape[1]):
            restored[:, band] = from_float(total[:, band], blurred.dtype)
    return restored[0] if single else restored


def _place(rows: tiling.Span, columns: tiling.Span) -> str:
    return f"rows {rows.first} to {rows.stop}, columns {columns.first} to {columns.stop}"


def _for_devices(at_once: int, count: int, module: nn.Module, shape: tuple[int, int]) -> int:
    """How many of `count` tiles to restore at once, `at_once` or more: as many on each device.

    As they are, where the devices share each tile instead.
    """
    devices = jax.local_device_count()
    if count % devices == 0 or not shares.fit(module, shape[1], devices):
        return tiling.round_up(at_once, devices)
    return at_once


def restore_frames(
    frames: Iterable[np.ndarray], restore_one: Callable[[np.ndarray], Any], channels: int
) -> Iterator[np.ndarray]:
    """Restores the frames of one clip in order, holding three of them.

    Args:
      frames: `[H, W, 3]` each.
      restore_one: restores `[H, W, channels]`.
      channels: 3 for a network of image mode, 9 for one that sees the previous and next frame too;
        the clip's ends are repeated.
    """
    if channels == 3:
        yield from map(restore_one, frames)
        return
    frames = iter(frames)
    current = next(frames, None)
    previous = current
    while current is not None and previous is not None:
        following = next(frames, None)
        last = current if following is None else following
        yield restore_one(np.concatenate([previous, current, last], axis=-1))
        previous, current = current, following


@functools.cache
def pixels_at_once(module: nn.Module, channels: int) -> int:
    """How many pixels a quarter of the device's memory holds, as far as the layers tell."""
    network: Any = module
    if network.reach is None:
        return int(_MEMORY_SHARE * _device_bytes() / network.bytes_per_pixel)
    side = 64
    image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    variables = needed(module, channels)
    apply = functools.partial(network.apply, capture_intermediates=True, mutable="intermediates")
    _, outputs = jax.eval_shape(apply, variables, image)
    widest = max(x.size * x.dtype.itemsize for x in jax.tree.leaves(outputs)) / side**2
    return int(_MEMORY_SHARE * _device_bytes() / (_LAYERS_ALIVE * widest))


@functools.cache
def _device_bytes() -> int:
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        return _DEFAULT_BYTES


def _apply(module: nn.Module, variables: Any, blurred: np.ndarray) -> np.ndarray:
    """Restores `[N, H, W, C]`: each device of the process its windows, or its columns of each."""
    devices = jax.local_devices()
    if len(blurred) % len(devices):
        apply, divided = _apply_shares, shares.sharding(devices)
    else:
        mesh = jax.sharding.Mesh(np.array(devices), ("data",))
        apply, divided = _apply_whole, jax.NamedSharding(mesh, jax.P("data"))
    placed = jax.device_put(blurred, divided)
    call = _jitted(apply, tuple(compiler_options(module).items()))
    return np.asarray(call(module, variables, placed))


def _apply_whole(module: nn.Module, variables: Any, blurred: jax.Array) -> Any:
    return module.apply(variables, blurred)


def _apply_shares(module: nn.Module, variables: Any, blurred: jax.Array) -> Any:
    return shares.divided_apply(module, jax.local_devices())(variables, blurred)


def compiler_options(module: Any) -> dict[str, Any]:
    """What `jax.jit` takes as `compiler_options` to restore with a network.

    Of a network that sees all of its input the tiles are bounded, and so is the memory; without the
    order for little of it such a network is quicker.
    """
    return quick_compilation_options() if module.reach is None else inference_options()


@functools.cache
def _jitted(apply: Callable[..., Any], options: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    # Not at import, since the options ask for the device.
    return jax.jit(apply, static_argnums=0, compiler_options=dict(options))
