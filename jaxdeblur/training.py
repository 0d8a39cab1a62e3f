"""Training: `train_and_evaluate` and the one step it repeats."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxdeblur import config as configuration
from jaxdeblur import distributed, evaluation, metrics, weights
from jaxdeblur.checkpoints import Checkpoints, any_checkpoint
from jaxdeblur.data import pipeline
from jaxdeblur.data.blur import make_pair
from jaxdeblur.errors import InputError, TrainingError
from jaxdeblur.losses import LOSSES
from jaxdeblur.models import create_model
from jaxdeblur.models.layers import current_frame
from jaxdeblur.progress import ProgressLine
from jaxdeblur.reporting import RunLog


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes.

    Attributes:
      step: steps made so far.
      params: parameters of the network, float32.
      ema_params: their moving average, or None.
      model_state: other collections of the network (`batch_stats`), usually empty.
      opt_state: state of the optimizer.
    """

    step: jax.Array
    params: Any
    ema_params: Any
    model_state: Any
    opt_state: optax.OptState

    def variables(self) -> dict[str, Any]:
        """What to restore images with: the averaged parameters where there are some."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, **self.model_state}


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    ema_decay: float,
    max_sigma: float,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Blurs a batch, restores it, and moves the parameters against the loss's gradient.

    The loss is a mean over the global batch, so that with the batch divided among devices the
    compiler adds the one sum over devices that data parallelism needs.

    Returns:
      The next state, and float32 scalars: `loss`, `psnr` and `blurred_psnr` of the batch in dB
      (of its mean squared error, so that one unchanged image does not make it infinite),
      `grad_norm` before clipping.
    """
    blurred, sharp = make_pair(batch, max_sigma)
    current = current_frame(blurred)
    collections = list(state.model_state)

    def batch_loss(params):
        variables = {"params": params, **state.model_state}
        restored, model_state = module.apply(variables, blurred, train=True, mutable=collections)
        return loss(restored, sharp), (restored, model_state)

    gradient = jax.value_and_grad(batch_loss, has_aux=True)
    (value, (restored, model_state)), grads = gradient(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = state.ema_params
    if ema_params is not None:
        # Early on, average over the steps there are: the initial parameters must not linger.
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        ema_params = optax.incremental_update(params, ema_params, 1 - decay)
    return state.replace(
        step=state.step + 1,
        params=params,
        ema_params=ema_params,
        model_state=model_state,
        opt_state=opt_state,
    ), {
        "loss": value,
        "psnr": -10 * jnp.log10(metrics.mse(jnp.clip(restored, 0, 1), sharp).mean()),
        "blurred_psnr": -10 * jnp.log10(metrics.mse(current, sharp).mean()),
        "grad_norm": optax.global_norm(grads),
    }


def make_optimizer(config: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Adam behind gradient clipping, at a constant or cosine rate after a linear warm-up."""
    after_warmup = num_steps - config.warmup_steps
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(config.learning_rate, max(after_warmup, 1))
    else:
        rate = optax.constant_schedule(config.learning_rate)
    if config.warmup_steps:
        warmup = optax.linear_schedule(0, config.learning_rate, config.warmup_steps)
        rate = optax.join_schedules([warmup, rate], [config.warmup_steps])
    adam = optax.adam(rate, b2=config.adam_b2)
    if not config.grad_clip_norm:
        return adam
    clip = clip_each_by_norm if config.grad_clip == "each" else optax.clip_by_global_norm
    return optax.chain(clip(config.grad_clip_norm), adam)


def clip_each_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales each parameter's gradient down to a norm of `max_norm`, as Keras's `clipnorm`."""

    def clip(gradient):
        norm = jnp.linalg.norm(gradient.ravel())
        return gradient * jnp.minimum(1, max_norm / jnp.maximum(norm, 1e-12))

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates))


def create_state(
    key: jax.Array,
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    patch_size: int,
    channels: int,
    ema: bool,
) -> TrainState:
    """Initialises parameters, their average and the optimizer."""
    variables = module.init(key, jnp.zeros((1, patch_size, patch_size, channels)))
    params = variables.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        model_state=variables,
        opt_state=optimizer.init(params),
    )


def _parts(config: ConfigDict, num_steps: int):
    """The module, the optimizer and the function that initialises a state from a key."""
    module = create_model(config.model, **config.model_kwargs, dtype=jnp.dtype(config.dtype))
    optimizer = make_optimizer(config, num_steps)
    init = functools.partial(
        create_state,
        module=module,
        optimizer=optimizer,
        patch_size=config.patch_size,
        channels=pipeline.input_channels(config),
        ema=config.ema_decay > 0,
    )
    return module, optimizer, init


def abstract_state(config: ConfigDict) -> TrainState:
    """The shapes and types of a run's state, with which to read its checkpoints."""
    _, _, init = _parts(config, num_steps=1)
    return jax.eval_shape(init, jax.random.key(config.seed))


def jit_step(
    config: ConfigDict,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    replicated: jax.sharding.Sharding,
    sharded: jax.sharding.Sharding,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """Jits `train_step` for a state on every device and a batch divided among them."""
    step = functools.partial(
        train_step,
        module=module,
        optimizer=optimizer,
        loss=LOSSES[config.loss],
        ema_decay=config.ema_decay,
        max_sigma=config.max_sigma,
    )
    return jax.jit(
        step,
        donate_argnums=0,  # the new state takes the old one's memory
        in_shardings=(replicated, sharded),
        out_shardings=replicated,
    )


def start_from(
    state: TrainState,
    source: str,
    module: nn.Module,
    channels: int,
    sharding: jax.sharding.Sharding,
) -> TrainState:
    """Replaces a new state's parameters, and their average, by trained ones.

    Args:
      state: the new state.
      source: what `weights.load` takes.
      module: the network.
      channels: of its input.
      sharding: of the state.

    Raises:
      InputError: no such weights, or those of another network.
    """
    trained = weights.load(source)
    weights.check_shapes(module, trained.variables(), channels, f"config.init_from = {source!r}")
    params, model_state = jax.device_put((trained.params, trained.model_state), sharding)
    average = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, ema_params=average, model_state=model_state)


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Trains the configured network, or goes on where the workdir's run stopped.

    Writes `config.json`, `metrics.jsonl`, `tensorboard/`, `pictures/`, `checkpoints/` and at the
    end `curves.png` into the workdir. A finished run is left as it is.

    Args:
      config: see `configs/default.py`.
      workdir: folder of the run; made where missing.

    Returns:
      The last state; equal bit for bit to that of a run without interruptions, on the same
      devices.

    Raises:
      InputError: wrong configuration or data, or a workdir of another configuration.
      TrainingError: the loss is no longer finite.
    """
    configuration.check(config)
    workdir = Path(workdir).expanduser()
    train_source = pipeline.open_source(config, "train")
    val_source = pipeline.open_source(config, "val")
    num_steps = config.num_steps or config.num_epochs * len(train_source) // config.batch_size
    if num_steps == 0:
        raise InputError(
            f"config.num_epochs = {config.num_epochs} of {len(train_source)} images is less than "
            f"one batch of {config.batch_size}; set config.num_steps"
        )

    replicated, sharded = distributed.shardings()
    module, optimizer, init = _parts(config, num_steps)
    state = jax.jit(init, out_shardings=replicated)(jax.random.key(config.seed))
    if config.init_from and not any_checkpoint(workdir):
        state = start_from(
            state, config.init_from, module, pipeline.input_channels(config), replicated
        )
    train = jit_step(config, module, optimizer, replicated, sharded)
    eval_step, eval_place = evaluation.make_step(config, module, pipeline.input_channels(config))
    place = functools.partial(pipeline.to_devices, sharding=sharded)
    batches = pipeline.training_batches(config, train_source)

    configuration.claim_workdir(workdir, config)
    with Checkpoints(workdir) as checkpoints:
        state = checkpoints.restore(state, batches)
        first = int(state.step)
        with (
            RunLog(workdir, first) as log,
            ProgressLine("training", num_steps, first) as progress,
        ):
            if first:
                progress.print(f"going on after step {first} of {workdir}")
            window = _Window(config.batch_size)
            for step in range(first + 1, num_steps + 1):
                with window.waiting():
                    batch = place(next(batches))
                state, measured = train(state, batch)
                window.add(step, measured)
                progress.update(step)
                evaluates = step == num_steps or step % config.eval_every_steps == 0
                saves = evaluates or step % config.checkpoint_every_steps == 0
                if not saves and step % config.log_every_steps:
                    continue
                values = window.close(checkpoints.latest_step())
                log.scalars(step, values)
                progress.update(step, _training_line(values, config.loss))
                validation = None
                if evaluates:
                    val_batches = pipeline.evaluation_batches(config, val_source)
                    result = evaluation.evaluate(
                        eval_step,
                        state.variables(),
                        val_batches,
                        eval_place,
                        total=len(val_source) * config.eval_repeats,
                    )
                    validation = result.means()
                    log.scalars(step, {f"eval/{name}": x for name, x in validation.items()})
                    picture = log.picture(step, result.contact_sheet())
                    progress.print(_validation_line(step, validation, picture))
                if saves:
                    checkpoints.save(state, batches, step, validation)
                window = _Window(config.batch_size)
            if first < num_steps:
                progress.print(f"curves: {log.curves()}")
    return state


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

    def close(self, last_checkpoint: int | None) -> dict[str, float]:
        """Returns the means; stops a run whose loss or gradient is not finite."""
        fetched = jax.device_get(self._steps)
        seconds = time.monotonic() - self._started
        for step, values in fetched:
            if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
                good = "there is none yet" if last_checkpoint is None else f"step {last_checkpoint}"
                raise TrainingError(
                    f"loss {values['loss']} with gradient norm {values['grad_norm']} at step "
                    f"{step}; last good checkpoint: {good}. Lower config.learning_rate or "
                    "config.grad_clip_norm, and use a new --workdir"
                )
        names = fetched[0][1]
        means = {n: float(sum(v[n] for _, v in fetched) / len(fetched)) for n in names}
        return means | {
            "images_per_second": len(fetched) * self._batch_size / seconds,
            # No device was idle for lack of input for a larger share than this.
            "loader_wait": self._waited / seconds,
        }


def _training_line(values: dict[str, float], loss: str) -> str:
    return (
        f"{loss} {values['loss']:.4f}  PSNR {values['psnr']:.2f} dB "
        f"(blurred {values['blurred_psnr']:.2f})  {values['images_per_second']:.0f} images/s"
    )


def _validation_line(step: int, values: dict[str, float], picture: Path) -> str:
    return (
        f"step {step}: held-out images {values['psnr']:.2f} dB, blurred "
        f"{values['blurred_psnr']:.2f} dB; picture: {picture}"
    )
