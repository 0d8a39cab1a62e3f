"""Evaluation: PSNR, SSIM and MSE of restored and of blurred images, one row per image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from jaxdeblur import config as configuration
from jaxdeblur import metrics, weights
from jaxdeblur.data import datasets, pipeline
from jaxdeblur.data.blur import make_pair
from jaxdeblur.data.source import Source
from jaxdeblur.errors import InputError
from jaxdeblur.evaluation import results, tables
from jaxdeblur.models.layers import current_frame
from jaxdeblur.restoring import restore
from jaxdeblur.runtime import distributed
from jaxdeblur.runtime.progress import ProgressLine


def evaluation_step(
    variables: Any,
    batch: dict[str, jax.Array],
    *,
    apply: Callable[..., Any] | None,
    max_sigma: float,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Restores one batch and measures it.

    Args:
      variables: what `apply` takes first.
      batch: see `make_pair`; with the images' numbers `index`.
      apply: the network, `(variables, blurred) -> restored`; None measures the blurred alone.
      max_sigma: see `gaussian_blur`.

    Returns:
      `index`, `sigma` if there is one, and metrics, `[B]` each, and images; see `measure`.
    """
    blurred, sharp = make_pair(batch, max_sigma)
    restored = None if apply is None else jnp.clip(apply(variables, blurred), 0, 1)
    rows, images = measure(current_frame(blurred), sharp, restored)
    return {name: batch[name] for name in ("index", "sigma") if name in batch} | rows, images


def measure(
    blurred: jax.Array, sharp: jax.Array, restored: jax.Array | None
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Compares images `[B, H, W, 3]` in [0, 1] with the sharp ones.

    Returns:
      Metrics `[B]` by name (those of the blurred images as `blurred_NAME`), and the images by name.
    """
    images = {"blurred": blurred, "sharp": sharp}
    rows = {f"blurred_{name}": metric(blurred, sharp) for name, metric in metrics.METRICS.items()}
    if restored is not None:
        images["restored"] = restored
        rows |= {name: metric(restored, sharp) for name, metric in metrics.METRICS.items()}
    return rows, images


class Evaluator:
    """Evaluates a network, any number of times, on one split of the data.

    Args:
      config: patches are divided among all devices, whole frames among the processes.
      source: the images or frames.
      module: the network; None measures the blurred images alone.
      channels: of its input; a network of image mode sees the current frame of three.
      scales: of whole frames, see `restore.Options`; patches are restored at their own size.
    """

    def __init__(
        self,
        config: ConfigDict,
        source: Source,
        module: nn.Module | None,
        channels: int,
        scales: Sequence[int] = (),
    ):
        self.total = len(source) * config.eval_repeats
        self._config, self._source = config, source
        self._module, self._channels = module, channels
        tile = int(config.tile) if config.tile.isdecimal() else config.tile
        self._options = restore.Options(tile, scales=tuple(scales))
        self._replicated, self._divided = distributed.shardings()
        self._measure = jax.jit(measure)
        self._step = jax.jit(
            functools.partial(
                evaluation_step,
                apply=None if module is None else self._apply,
                max_sigma=config.max_sigma,
            ),
            in_shardings=(self._replicated, self._divided),
            out_shardings=self._replicated,
        )

    def _apply(self, variables: Any, blurred: jax.Array) -> Any:
        assert self._module is not None
        seen = current_frame(blurred) if self._channels == 3 else blurred
        return self._module.apply(variables, seen)

    def __call__(
        self,
        variables: Any,
        *,
        num_pictures: int = 8,
        progress: Callable[[int], None] = lambda count: None,
    ) -> results.Result:
        """Measures all images.

        Every process must call it; all have the same rows, process 0 alone has pictures.

        Args:
          variables: the network's, whole on every device.
          num_pictures: how many images to keep, evenly spread; only those of the first one's size.
          progress: called with the number of images done, as often on every process.
        """
        spread = {round(i * self.total / num_pictures) for i in range(num_pictures)}
        spread &= set(range(self.total))  # of a few images, the last would be beyond them
        if self._config.eval_patch_size:
            return self._patches(variables, spread, progress)
        return self._frames(variables, spread, progress)

    def _patches(
        self, variables: Any, spread: set[int], progress: Callable[[int], None]
    ) -> results.Result:
        rows: list[dict[str, np.ndarray]] = []
        kept = _Kept()
        done = 0
        for part, count in pipeline.evaluation_batches(self._config, self._source):
            measured, pictured = self._step(
                variables, distributed.parts_to_devices(part, self._divided)
            )
            rows.append({name: np.asarray(x)[:count] for name, x in measured.items()})
            for i in sorted(spread & set(range(done, done + count))):
                kept.add(i, pictured, i - done)
            done += count
            progress(done)
        table = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        return results.Result(table, kept.shown, kept.images)

    def _frames(
        self, variables: Any, spread: set[int], progress: Callable[[int], None]
    ) -> results.Result:
        parts = frame_parts(self.total, spread, jax.process_count())
        own = parts[jax.process_index()]
        variables = distributed.on_own_devices(variables)
        names = [f"blurred_{name}" for name in metrics.METRICS]
        names += [] if self._module is None else metrics.METRICS
        values = np.zeros((len(own), len(names)), np.float32)
        kept = _Kept()
        for done in range(max(map(len, parts))):
            if done < len(own):
                measured, pictured = self._frame(variables, own[done])
                values[done] = [measured[name][0] for name in names]
                if own[done] in spread:
                    kept.add(own[done], pictured, 0)
            progress(sum(min(done + 1, len(part)) for part in parts))
        index = distributed.gather_rows(np.array(own, np.int32))
        order = np.argsort(index)
        columns = distributed.gather_rows(values)[order].T
        table = {"index": index[order], **dict(zip(names, columns, strict=True))}
        return results.Result(table, kept.shown, kept.images)

    def _frame(self, variables: Any, i: int) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Restores one whole frame, in tiles where it does not fit, and measures it."""
        frame = {name: x[None] for name, x in self._source.whole_sample(i).items()}
        blurred, sharp = make_pair(frame, max_sigma=0)
        current = current_frame(blurred)
        restored = None
        if self._module is not None:
            seen = np.asarray(current if self._channels == 3 else blurred)
            restored = restore.restore(self._module, variables, seen, self._options, limits=None)
        return self._measure(current, sharp, restored)


def frame_parts(total: int, shown: set[int], num_processes: int) -> list[list[int]]:
    """Divides frames among processes: to process 0 those it is to show, and equal numbers to all.

    Returns:
      For each process the frames' numbers, in order.
    """
    others = [i for i in range(total) if i not in shown]
    more = max(-(-total // num_processes) - len(shown), 0)  # for process 0
    rest = others[more:]
    first = sorted([*shown, *others[:more]])
    return [first, *(rest[i :: num_processes - 1] for i in range(num_processes - 1))]


class _Kept:
    """The images of a `Result`, all of the first one's size; of process 0 alone."""

    def __init__(self) -> None:
        self.shown: list[int] = []
        self.images: dict[str, list[np.ndarray]] = {}

    def add(self, number: int, images: dict[str, jax.Array], row: int) -> None:
        """Copies one row of images from the devices."""
        if not distributed.is_main():
            return
        if self.images and self.images["sharp"][0].shape != images["sharp"].shape[1:]:
            return
        self.shown.append(number)
        for name, batch in images.items():
            self.images.setdefault(name, []).append(np.asarray(batch[row]))


def run(
    config: ConfigDict,
    *,
    source: str | Path | None = None,
    output: str | Path | None = None,
    table: str | Path | None = None,
    done: Callable[[results.Result], None] = lambda result: None,
) -> dict[str, Any]:
    """Evaluates trained weights, or the blurred images alone, on the test split.

    Args:
      config: the data and the protocol; the network comes from the weights' card.
      source: what `weights.load` takes; None measures the blurred images alone.
      output: folder for `results.json`, `per_image.csv` and `images.png`; made where missing.
      table: CSV file to which the figures are added (`tables.Row`), in place of earlier ones of
        the same weights, data and protocol; made where missing.
      done: called with what was measured, by process 0 alone.

    Returns:
      The contents of `results.json`, where infinite values are null.

    Raises:
      InputError: wrong configuration, data, weights, output folder or table, or a size that the
        network does not take.
    """
    with distributed.together():
        configuration.check(config)
        images = datasets.open_source(config, "test")
        effort = config.effort or None
        deblurrer = None if source is None else weights.load(source, effort=effort)
        channels = 3 if deblurrer is None else deblurrer.card["channels"]
        if channels > 3 * images.num_frames:
            raise InputError(
                f"{str(source)!r} is a network of video mode ({channels} channels); "
                f"{images.name} needs one of image mode"
            )
        if distributed.is_main():
            results.check_destinations(output, table)
    module = None if deblurrer is None else deblurrer.module
    scales = () if deblurrer is None else deblurrer.card.get("scales", ())
    evaluator = Evaluator(config, images, module, channels, scales)
    variables = {} if deblurrer is None else deblurrer.variables()
    variables = distributed.to_devices(variables, distributed.shardings()[0])
    with ProgressLine("evaluation", evaluator.total, quiet=not distributed.is_main()) as progress:
        result = evaluator(variables, progress=progress.update)
    summary = results.summarise(result, config, images, deblurrer)
    if distributed.is_main():
        results.print_table(summary, config.dataset)
        if output is not None:
            results.write(output, summary, result, images.labels)
        if table is not None:
            rows = results.table_rows(summary, result, config, images, source)
            tables.add(table, rows)
        done(result)
    return summary
