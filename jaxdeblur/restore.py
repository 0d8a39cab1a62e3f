"""Images of any size through a network: padded to its grid, whole or in tiles.

The networks are local: a restored pixel depends on no more than `module.reach` pixels around it. So
a tile with that margin gives what the whole picture would, to rounding, if it lies on the network's
grid and the margin is left out only where the picture itself ends.

XLA compiles a program for each size. A single picture is therefore padded, by reflection, to a size
that tiles of a few shapes cover; a batch, whose size its user chose, to the network's grid alone.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxdeblur.errors import InputError
from jaxdeblur.models.layers import current_frame
from jaxdeblur.startup import inference_options

_log = logging.getLogger(__name__)

Tile = int | Literal["auto", "off"]

# Shapes of tiles, in pixels: few, so that a folder of photographs compiles few programs, and small
# enough for the caches of a CPU (with 64 channels, a pixel costs half as much again beyond).
_SHAPES = ((256, 256), (384, 512), (512, 384), (512, 768), (768, 512), (768, 768))

# A network's temporary arrays, in units of its widest layer's output: 5 to 15 by XLA's count (the
# `memory_analysis` of a call compiled for 256x256 to 768x768), CARLO_NET's most.
_LAYERS_ALIVE = 15
_DEFAULT_BYTES = 4 * 2**30  # where the device does not tell how much it has
_MEMORY_SHARE = 0.25

# From this side on, what a network changes on average is a property of the network: a part of a few
# pixels may well become quite another.
LIMITED_SIDE = 64


@dataclasses.dataclass(frozen=True)
class Options:
    """How to restore.

    Attributes:
      tile: side of square tiles in pixels, "auto" for tiles that fit the memory, "off" for none.
      self_ensemble: average over the picture's 8 flips and turns; takes 8 times as long.
      strength: 0 gives the blurred picture back, 1 the restored one, in between a mixture.
      scales: how many times the picture is shrunk for further passes, in order; see
        `restore_scales`.
    """

    tile: Tile = "auto"
    self_ensemble: bool = False
    strength: float = 1.0
    scales: tuple[int, ...] = ()

    def __post_init__(self):
        if not (self.tile in ("auto", "off") or (type(self.tile) is int and self.tile > 0)):
            raise InputError(f"tile = {self.tile!r} must be 'auto', 'off' or a number of pixels")
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength = {self.strength!r} must be between 0 and 1")
        if not all(type(scale) is int and scale > 1 for scale in self.scales):
            raise InputError(f"scales = {self.scales!r} must be whole numbers above 1, such as 4")


@dataclasses.dataclass(frozen=True)
class Span:
    """A tile along one axis.

    Attributes:
      start: its first pixel.
      first: the first pixel that it gives to the result.
      stop: the pixel after the last one.
    """

    start: int
    first: int
    stop: int


def cut(length: int, padded: int, tile: int, reach: tuple[int, int], multiple: int) -> list[Span]:
    """Covers one axis of a picture with overlapping tiles.

    Args:
      length: of the picture, in pixels.
      padded: its length with padding, a multiple of `multiple`.
      tile: length of a tile, a multiple of `multiple`, `padded` at most.
      reach: pixels before and after its own that a restored pixel depends on.
      multiple: tiles start on multiples of it.

    Returns:
      The tiles in order; what they give follows one another from 0 to `length`.
    """
    before, after = reach
    spans = [Span(0, 0, length if tile == padded else min(tile - after, length))]
    while spans[-1].stop < length:
        first = spans[-1].stop
        start = min((first - before) // multiple * multiple, padded - tile)
        stop = length if start + tile == padded else min(start + tile - after, length)
        spans.append(Span(start, first, stop))
    return spans


@dataclasses.dataclass(frozen=True)
class Plan:
    """The tiles of pictures of one size.

    Attributes:
      shape: height and width of a tile.
      rows: the tiles along the height.
      columns: the tiles along the width.
    """

    shape: tuple[int, int]
    rows: list[Span]
    columns: list[Span]

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        padded: tuple[int, int],
        shape: tuple[int, int],
        reach: tuple[int, int],
        multiple: int,
    ) -> Plan | None:
        """The plan with tiles of a shape; None where their margins leave nothing of them."""
        shape = (min(shape[0], padded[0]), min(shape[1], padded[1]))
        for tile, whole in zip(shape, padded, strict=True):
            if tile < whole and tile < sum(reach) + multiple:
                return None
        spans = (
            cut(length, whole, tile, reach, multiple)
            for length, whole, tile in zip(size, padded, shape, strict=True)
        )
        return cls(shape, *spans)

    @property
    def pixels(self) -> int:
        """Pixels of all tiles."""
        return math.prod(self.shape) * len(self.rows) * len(self.columns)


def padded_size(module: nn.Module, size: tuple[int, int], *, single: bool) -> tuple[int, int]:
    """Returns the height and width to which pictures of a size are padded.

    They depend on nothing else, so that no option changes what lies beyond the picture.
    """
    network: Any = module
    multiple = network.size_multiple
    height, width = (_round_up(max(n, network.minimum_size), multiple) for n in size)
    if not single:
        return height, width
    choices = []
    for shape in _SHAPES:
        padded = (max(height, shape[0]), max(width, shape[1]))
        if tiles := Plan.of(size, padded, shape, network.reach, multiple):
            choices.append((tiles.pixels, padded))
    return min(choices)[1] if choices else (height, width)


def plan(
    module: nn.Module, size: tuple[int, int], options: Options, *, single: bool, budget: int
) -> Plan:
    """Decides on padding and tiles.

    Args:
      module: the network.
      size: height and width of the picture in pixels.
      options: how to restore.
      single: a picture by itself, which shares programs with pictures of other sizes.
      budget: pixels that may be restored at once.

    Raises:
      InputError: tiles of the given size would be nothing but margin.
    """
    network: Any = module
    multiple, reach = network.size_multiple, network.reach
    if options.self_ensemble:  # turned around, the network sees as far to the other side
        reach = (max(reach), max(reach))
    padded = padded_size(module, size, single=single)
    at_once = min(budget, math.prod(_SHAPES[-1]))
    if options.tile == "off" or (
        options.tile == "auto" and not single and math.prod(padded) <= at_once
    ):
        shapes = [padded]
    elif options.tile == "auto":
        # Tiles that the picture is too small for would be cut to its size, each time another one.
        shapes = [s for s in _SHAPES if not single or (s[0] <= padded[0] and s[1] <= padded[1])]
    else:
        side = _round_up(options.tile, multiple)
        shapes = [(side, side)]
    plans = [p for s in shapes if (p := Plan.of(size, padded, s, reach, multiple))]
    if not plans and options.tile != "auto":
        raise InputError(
            f"tile = {options.tile} is too small for {type(module).__name__}, whose margins are "
            f"{reach[0]} and {reach[1]} pixels; {sum(reach) + multiple} at least, or 'auto'"
        )
    if not plans and (whole := Plan.of(size, padded, padded, reach, multiple)):
        plans = [whole]  # no tile is larger than its margins
    fitting = [p for p in plans if math.prod(p.shape) <= budget]
    if fitting:
        return min(fitting, key=lambda p: p.pixels)
    return min(plans, key=lambda p: math.prod(p.shape))


def restore(
    module: nn.Module,
    variables: Any,
    blurred: np.ndarray,
    options: Options,
    limits: Mapping[str, float],
) -> np.ndarray:
    """Restores one picture or a batch.

    Args:
      module: the network.
      variables: its variables.
      blurred: `[H, W, C]` or `[B, H, W, C]` of any size; uint8, uint16, or float in [0, 1].
      options: how to restore.
      limits: see `_implausible`.

    Returns:
      The restored pictures with 3 channels, clipped, of the input's type. A tile whose result is
      implausible is the input's, and a warning is logged that names it.

    Raises:
      InputError: scales for a network of video mode.
    """
    if not options.scales:
        return _restore_tiles(module, variables, blurred, options, limits)
    if blurred.shape[-1] != 3:
        raise InputError(
            f"scales = {options.scales} are for networks of image mode; this one sees three frames"
        )
    full = dataclasses.replace(options, strength=1.0, scales=())

    def once(picture):
        return _restore_tiles(module, variables, picture, full, limits)

    restored = restore_scales(once, blurred, options.scales)
    if options.strength < 1:
        for rows in _bands(blurred.shape[-3]):
            before, after = to_float(blurred[..., rows, :, :]), to_float(restored[..., rows, :, :])
            mixed = before + options.strength * (after - before)
            restored[..., rows, :, :] = _quantise(mixed, blurred.dtype)
    return restored


def restore_scales(
    restore_once: Callable[[np.ndarray], np.ndarray], blurred: np.ndarray, scales: Iterable[int]
) -> np.ndarray:
    """Restores pictures at their own size, then what is left at coarser ones.

    A blur longer than a network has learned is a short one where the picture is shrunk; what the
    network changes there is enlarged and added. The finest comes first: after it, blur that the
    network knows is gone, and the coarser passes leave the picture alone. (Nah et al., CVPR 2017,
    go the other way, with a network that has learned it.)

    Args:
      restore_once: restores pictures of any size and type, to new ones.
      blurred: `[..., H, W, 3]`; uint8, uint16, or float in [0, 1].
      scales: how many times to shrink; those that leave less than `LIMITED_SIDE` pixels of a side
        are left out.

    Returns:
      The restored pictures, clipped, of the input's type.
    """
    restored = restore_once(blurred)
    for scale in scales:
        if min(blurred.shape[-3:-1]) // scale >= LIMITED_SIDE:
            small = _shrink(restored, scale)
            _add_enlarged(restored, restore_once(small) - small, scale)
    return restored


def _shrink(pictures: np.ndarray, scale: int) -> np.ndarray:
    """Means over squares of `scale` pixels, float32; at the ends the last pixel is repeated."""
    height, width = (-(-size // scale) for size in pictures.shape[-3:-1])
    columns = np.minimum(np.arange(width * scale), pictures.shape[-2] - 1)
    small = np.empty((*pictures.shape[:-3], height, width, 3), np.float32)
    for band in _bands(height):
        rows = np.arange(band.start * scale, band.stop * scale)
        rows = np.minimum(rows, pictures.shape[-3] - 1)
        fine = np.nan_to_num(to_float(pictures[..., rows, :, :][..., columns, :]))
        squares = (*fine.shape[:-3], len(rows) // scale, scale, width, scale, 3)
        small[..., band, :, :] = fine.reshape(squares).mean((-4, -2))
    return small


def _add_enlarged(pictures: np.ndarray, change: np.ndarray, scale: int) -> None:
    """Adds `change`, enlarged by cubic interpolation, in place; a band at a time, for memory."""
    for rows in _bands(pictures.shape[-3]):
        band = pictures[..., rows, :, :]
        larger = jax.image.scale_and_translate(
            change,
            band.shape,
            (change.ndim - 3, change.ndim - 2),
            jnp.array([scale, scale], jnp.float32),
            jnp.array([-rows.start, 0], jnp.float32),
            "cubic",
            antialias=False,
        )
        band[...] = _quantise(to_float(band) + np.asarray(larger), pictures.dtype)


def _bands(height: int) -> list[slice]:
    """Divides rows, so that not all of a picture need be of floats at a time."""
    return [slice(start, min(start + 128, height)) for start in range(0, height, 128)]


def _restore_tiles(
    module: nn.Module,
    variables: Any,
    blurred: np.ndarray,
    options: Options,
    limits: Mapping[str, float],
) -> np.ndarray:
    """Restores pictures at their own size; see `restore`."""
    single = blurred.ndim == 3
    pictures = blurred[None] if single else blurred
    restored = np.empty((*pictures.shape[:3], 3), blurred.dtype)
    if not restored.size:
        return restored[0] if single else restored
    budget = pixels_at_once(module, blurred.shape[-1])
    layout = plan(module, pictures.shape[1:3], options, single=single, budget=budget)
    tiles = list(itertools.product(range(len(pictures)), layout.rows, layout.columns))
    at_once = 1 if single else max(min(len(tiles), budget // math.prod(layout.shape)), 1)
    at_once = _round_up(at_once, jax.local_device_count())
    for start in range(0, len(tiles), at_once):
        chosen = tiles[start : start + at_once]
        windows = np.stack([_window(pictures[i], r, c, layout.shape) for i, r, c in chosen])
        missing = at_once - len(chosen)  # a batch of another size would be another program
        filled = np.concatenate([windows, np.repeat(windows[-1:], missing, axis=0)])
        results = _ensemble(module, variables, filled, options.self_ensemble)
        for (i, rows, columns), window, result in zip(chosen, windows, results, strict=False):
            inside = _inside(rows), _inside(columns)
            before, after = to_float(current_frame(window[inside])), result[inside]
            if reason := _implausible(before, after, limits):
                where = f"rows {rows.first} to {rows.stop}, columns {columns.first} to "
                _log.warning("%s%d left as they were: %s", where, columns.stop, reason)
                after = before
            mixed = before + options.strength * (after - before)
            target = restored[i, rows.first : rows.stop, columns.first : columns.stop]
            target[...] = _quantise(mixed, blurred.dtype)
    return restored[0] if single else restored


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
    side = 64
    network: Any = module
    image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
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


def _ensemble(module, variables, windows: np.ndarray, all_ways: bool) -> np.ndarray:
    """Restores `[N, H, W, C]`, once or as the mean over 8 flips and turns, to float32."""
    blurred = to_float(windows)
    if not all_ways:
        return np.asarray(_apply(module, variables, _on_devices(blurred)))
    total = np.zeros((*blurred.shape[:3], 3), np.float32)
    for flipped, turns in itertools.product((False, True), range(4)):
        view = np.rot90(blurred[:, :, ::-1] if flipped else blurred, turns, (1, 2))
        result = np.asarray(_apply(module, variables, _on_devices(view)))
        result = np.rot90(result, -turns, (1, 2))
        total += result[:, :, ::-1] if flipped else result
    return total / 8


def _apply(module: nn.Module, variables: Any, blurred: jax.Array) -> jax.Array:
    return _jitted_apply()(module, variables, blurred)


@functools.cache
def _jitted_apply() -> Callable[[nn.Module, Any, jax.Array], jax.Array]:
    # Not at import, since the options ask for the device.
    def apply(module, variables, blurred):
        return module.apply(variables, blurred)

    return jax.jit(apply, static_argnums=0, compiler_options=inference_options())


def _on_devices(windows: np.ndarray) -> jax.Array:
    """Divides the windows among this process's devices."""
    devices = jax.local_devices()
    if len(devices) == 1:
        return jnp.asarray(windows)
    mesh = jax.sharding.Mesh(devices, ("data",))
    return jax.device_put(windows, jax.NamedSharding(mesh, jax.P("data")))


def _window(picture: np.ndarray, rows: Span, columns: Span, shape: tuple[int, int]) -> np.ndarray:
    """A tile of the padded picture."""
    lines = (
        _reflect(np.arange(span.start, span.start + length), size)
        for span, length, size in zip((rows, columns), shape, picture.shape[:2], strict=True)
    )
    return picture[np.ix_(*lines)]


def _reflect(index: np.ndarray, size: int) -> np.ndarray:
    """Reflects indices at both ends, without repeating the edge pixel, as often as it takes."""
    period = max(2 * (size - 1), 1)
    index = index % period
    return np.minimum(index, period - index) if size > 1 else np.zeros_like(index)


def _inside(span: Span) -> slice:
    """The pixels of a tile that it gives to the result."""
    return slice(span.first - span.start, span.stop - span.start)


def changes(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Measures by how much a network changes a picture.

    Args:
      before: blurred `[H, W, 3]` in [0, 1].
      after: restored, not clipped.

    Returns:
      `change`, the root mean square of the difference; `overshoot`, the mean excess over [0, 1];
      and `colour_shift`, the largest change of a channel's mean.
    """
    difference = after - before
    return {
        "change": float(np.sqrt(np.square(difference).mean())),
        "overshoot": float(np.abs(after - np.clip(after, 0, 1)).mean()),
        "colour_shift": float(np.abs(difference.mean((0, 1))).max()),
    }


def _implausible(before: np.ndarray, after: np.ndarray, limits: Mapping[str, float]) -> str | None:
    """Says why a result cannot be a restored picture, or None.

    Args:
      before: blurred `[H, W, 3]` in [0, 1].
      after: restored, not clipped.
      limits: the most that a network's card allows of what `changes` measures, for parts of
        `LIMITED_SIDE` pixels squared or more; what it does not name is not checked.
    """
    if not np.isfinite(after).all():
        return "the network's output is not finite"
    if before.shape[0] * before.shape[1] < LIMITED_SIDE**2:
        return None
    for name, value in changes(before, after).items():
        if value > limits.get(name, math.inf):
            return f"{name.replace('_', ' ')} {value:.3f}, more than {limits[name]:.3f}"
    return None


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Pixels as float32; integers are divided by their type's largest value."""
    if np.issubdtype(pixels.dtype, np.integer):
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    return pixels.astype(np.float32)


def _quantise(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    pixels = np.clip(pixels, 0, 1)
    if np.issubdtype(dtype, np.integer):
        pixels = np.rint(pixels * np.iinfo(dtype).max)
    return pixels.astype(dtype)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
