"""Training: `train_and_evaluate` repeats one step, and saves, evaluates and logs meanwhile."""

from __future__ import annotations

import contextlib
import functools
import math
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxdeblur import config as configuration
from jaxdeblur import weights
from jaxdeblur.data import datasets, pipeline
from jaxdeblur.data.source import Source, fingerprint
from jaxdeblur.errors import InputError, Preempted, TrainingError
from jaxdeblur.evaluation.evaluator import Evaluator
from jaxdeblur.losses import LOSSES
from jaxdeblur.models.variables import check_shapes
from jaxdeblur.runtime import distributed
from jaxdeblur.runtime.startup import quick_compilation_options, training_options
from jaxdeblur.training.runs import Run
from jaxdeblur.training.state import Parts, TrainState, make_parts
from jaxdeblur.training.step import train_step

# One program that draws the first parameters is quick to compile for networks of fewer arrays; that
# of MAXIM's 2,754 takes five minutes. Drawn one by one, they are the same.
_MANY_ARRAYS = 200


def jit_step(
    config: ConfigDict, parts: Parts, state_shardings: TrainState
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """Jits `train_step` for a state that lies as it is told and a batch divided among devices.

    The step also returns the `index` of its batch, int32 `[B]`.
    """
    whole, divided = distributed.shardings()

    def step(state: TrainState, batch: dict[str, jax.Array]):
        state, measured = train_step(
            state,
            batch,
            module=parts.module,
            optimizer=parts.optimizer,
            loss=LOSSES[config.loss],
            ema_decay=config.ema_decay,
            max_sigma=config.max_sigma,
            mixup=config.mixup,
            seed=config.seed,
            grad_accum_steps=config.grad_accum_steps,
        )
        return state, {**measured, "index": batch["index"]}

    return jax.jit(
        step,
        donate_argnums=0,  # the new state takes the old one's memory
        in_shardings=(state_shardings, divided),
        out_shardings=(state_shardings, whole),
        compiler_options=training_options(),
    )


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Trains the configured network, or goes on where the workdir's run stopped.

    Writes `config.json`, `data.json`, `metrics.jsonl`, `tensorboard/`, `pictures/`, `checkpoints/`
    and at the end `curves.png` into the workdir. A finished run is left as it is, also where its
    data have grown: a run keeps the number of steps that it began with. With several processes
    (`cluster.joined`) all call it alike.

    Args:
      config: see `configs/default.py`.
      workdir: folder of the run, or the URL of one in object storage; made where missing.

    Returns:
      The last state; equal bit for bit to that of a run without interruptions, on the same
      devices.

    Raises:
      InputError: wrong configuration or data, or a workdir of another configuration or in use.
      TrainingError: the loss is no longer finite, or the workdir cannot be written.
      Preempted: the process was asked to end (SIGTERM); the state is saved.
    """
    with distributed.together():
        configuration.check(config)
        train_source = datasets.open_source(config, "train")
        val_source = datasets.open_source(config, "val")
        data = {"train": fingerprint(train_source), "val": fingerprint(val_source)}
        run = Run(workdir, config, _num_steps(config, len(train_source)), data)
    with run:
        return _train(config, run, train_source, val_source)


def _train(config: ConfigDict, run: Run, train_source: Source, val_source: Source) -> TrainState:
    # The data may have grown since the run began: its length and its learning rates stay.
    num_steps = int(distributed.broadcast(np.array(run.num_steps)))
    channels = 3 * train_source.num_frames
    parts = make_parts(config, num_steps, channels)
    shapes = jax.eval_shape(parts.init, jax.random.key(config.seed))
    layout = distributed.state_shardings(shapes, divided=config.shard_state)
    train = jit_step(config, parts, layout)
    place = functools.partial(distributed.parts_to_devices, sharding=distributed.shardings()[1])
    evaluator = Evaluator(config, val_source, parts.module, channels)

    def is_evaluated(step: int) -> bool:
        return step == num_steps or step % config.eval_every_steps == 0

    with distributed.Preemption() as preemption:

        def evaluate(state: TrainState, step: int) -> None:
            def batch_done(_: int) -> None:
                if preemption.asked():
                    raise _preempted(run, step)

            variables = distributed.gathered(state.variables())
            run.evaluated(step, evaluator(variables, progress=batch_done))

        state = _saved_state(run, shapes, layout)
        if state is None:
            state = _new_state(config, parts, layout, channels)
        first = int(state.step)
        # A run may have been ended between saving a step and evaluating it.
        unevaluated = first > 0 and is_evaluated(first) and not run.is_evaluated(first)
        unevaluated = bool(distributed.broadcast(np.array(unevaluated)))
        if first >= num_steps and not unevaluated:
            return state
        with distributed.together():
            run.begin()
        if unevaluated:
            evaluate(state, first)
        batches = pipeline.training_batches(config, train_source, first)
        window = _Window(config.batch_size)
        for step in range(first + 1, num_steps + 1):
            with window.waiting():
                batch = place(next(batches))
            state, measured = train(state, batch)
            window.add(step, measured)
            run.step(step)
            asked = preemption.asked()
            saves = asked or is_evaluated(step) or step % config.checkpoint_every_steps == 0
            if not saves and step % config.log_every_steps:
                continue
            run.trained(step, window.close(run.last_checkpoint()))
            if saves:
                run.save(state, step)
            if asked:
                raise _preempted(run, step)
            if is_evaluated(step):
                evaluate(state, step)
            window = _Window(config.batch_size)
        run.finish()
    return state


def _num_steps(config: ConfigDict, num_images: int) -> int:
    num_steps = config.num_steps or config.num_epochs * num_images // config.batch_size
    if num_steps == 0:
        raise InputError(
            f"config.num_epochs = {config.num_epochs} of {num_images} images is less than one "
            f"batch of {config.batch_size}; set config.num_steps"
        )
    return num_steps


def _saved_state(run: Run, shapes: TrainState, layout: TrainState) -> TrainState | None:
    """Places the state that process 0 reads on the devices; None where there is none."""
    with distributed.together():
        saved = run.read(shapes)
    if not distributed.broadcast(np.array(saved is not None)):
        return None
    if saved is None:  # another process than 0
        saved = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return distributed.to_devices(distributed.broadcast(saved), layout)


def _new_state(config: ConfigDict, parts: Parts, layout: TrainState, channels: int) -> TrainState:
    """A first state; its parameters, and their average, are those of `init_from` where it is set.

    Raises:
      InputError: no such weights, or those of another network.
    """
    key = jax.random.key(config.seed)
    if len(jax.tree.leaves(layout.params)) > _MANY_ARRAYS:
        state = distributed.to_devices(parts.init(key), layout)
    else:
        options = quick_compilation_options()
        state = jax.jit(parts.init, out_shardings=layout, compiler_options=options)(key)
    source = config.init_from
    if not source:
        return state
    with distributed.together():
        trained = weights.load(source)
        name = f"config.init_from = {source!r}"
        check_shapes(parts.module, trained.variables(), channels, name)
    params = distributed.to_devices(trained.params, layout.params)
    model_state = distributed.to_devices(trained.model_state, layout.model_state)
    average = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, ema_params=average, model_state=model_state)


def _preempted(run: Run, step: int) -> Preempted:
    return Preempted(
        f"asked to end: step {step} is saved in {run.name}; the same command goes on from there"
    )


class _Window:
    """The metrics of the steps since the last report, fetched from the devices all at once."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._steps: list[tuple[int, dict[str, jax.Array]]] = []
        self._started = time.monotonic()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as spent on the loader."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def add(self, step: int, measured: dict[str, jax.Array]) -> None:
        self._steps.append((step, measured))

    def close(self, last_checkpoint: str) -> dict[str, float]:
        """Returns the means; stops a run whose loss or gradient is not finite."""
        fetched = jax.device_get(self._steps)
        seconds = time.monotonic() - self._started
        samples = 0
        for step, values in fetched:
            if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
                error = TrainingError(
                    f"loss {values['loss']} with gradient norm {values['grad_norm']} at step "
                    f"{step}; last good checkpoint: {last_checkpoint}. Lower config.learning_rate "
                    "or config.grad_clip_norm, and use a new --workdir"
                )
                error.common = True  # every process has the same loss
                raise error
            samples = zlib.crc32(values.pop("index").astype("<i4").tobytes(), samples)
        names = fetched[0][1]
        means = {n: float(sum(v[n] for _, v in fetched) / len(fetched)) for n in names}
        return means | {
            "images_per_second": len(fetched) * self._batch_size / seconds,
            # No device was idle for lack of input for a larger share than this.
            "loader_wait": self._waited / seconds,
            # Of these steps' images' numbers, in order: the same wherever the run is repeated.
            "samples": samples,
        }
