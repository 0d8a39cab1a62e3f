"""One step of training: its loss and its gradients. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxdeblur import metrics
from jaxdeblur.data.blur import make_pair
from jaxdeblur.models.layers import current_frame
from jaxdeblur.training.state import TrainState


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    ema_decay: float,
    max_sigma: float,
    mixup: float = 0.0,
    seed: int = 0,
    grad_accum_steps: int = 1,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Blurs a batch, restores it, and moves the parameters against the loss's gradient.

    The loss is a mean over the global batch, so that with the batch divided among devices the
    compiler adds the one sum over devices that data parallelism needs.

    Args:
      state: before the step.
      batch: see `make_pair`, B images.
      module: the network.
      optimizer: of its parameters.
      loss: of restored and sharp images `[B, H, W, 3]`, a mean over them; of a network with several
        `outputs` the sum over all, each against the sharp image of its size.
      ema_decay: of the parameters' average.
      max_sigma: see `gaussian_blur`.
      mixup: probability that a pair is mixed with another one, see `mixed_pairs`.
      seed: of its random numbers, which are other ones at each step.
      grad_accum_steps: parts of the batch, of equal size, that are worked through one after the
        other, which takes less memory. The gradient is that of the whole; batch statistics are
        those of the parts.

    Returns:
      The next state, and float32 scalars: `loss`, `psnr` and `blurred_psnr` of the batch in dB
      (of its mean squared error, so that one unchanged image does not make it infinite),
      `grad_norm` before clipping.
    """
    blurred, sharp = make_pair(batch, max_sigma)
    if mixup:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        blurred, sharp = mixed_pairs(key, blurred, sharp, mixup)
    collections = list(state.model_state)
    method = "outputs" if hasattr(module, "outputs") else None

    def batch_loss(params, model_state, blurred, sharp):
        variables = {"params": params, **model_state}
        options = {"train": True, "mutable": collections, "method": method}
        outputs, model_state = module.apply(variables, blurred, **options)
        pictures = jax.tree.leaves(outputs)
        mse = metrics.mse(jnp.clip(pictures[-1], 0, 1), sharp).mean()
        value = sum(loss(picture, _nearest_of_size(sharp, picture)) for picture in pictures)
        return value, (mse, model_state)

    gradient = jax.value_and_grad(batch_loss, has_aux=True)
    if grad_accum_steps > 1:
        gradient = _accumulated(gradient, grad_accum_steps)
    (value, (mse, model_state)), grads = gradient(state.params, state.model_state, blurred, sharp)
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
        "psnr": -10 * jnp.log10(mse),
        "blurred_psnr": -10 * jnp.log10(metrics.mse(current_frame(blurred), sharp).mean()),
        "grad_norm": optax.global_norm(grads),
    }


def mixed_pairs(
    key: jax.Array, blurred: jax.Array, sharp: jax.Array, probability: float
) -> tuple[jax.Array, jax.Array]:
    """Mixes some of the pairs with the one before in the batch, blurred and sharp images alike.

    Args:
      key: of the random numbers.
      blurred: float `[B, H, W, C]`.
      sharp: float `[B, H, W, 3]`.
      probability: that a pair is mixed. The share of its own is drawn from Beta(1.2, 1.2).

    References:
      Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; the distribution is that
      of Zamir et al., "Learning Enriched Features for Real Image Restoration", ECCV 2020.
    """
    chosen_key, share_key = jax.random.split(key)
    shape = (len(blurred), 1, 1, 1)
    share = jax.random.beta(share_key, 1.2, 1.2, shape)
    share = jnp.where(jax.random.bernoulli(chosen_key, probability, shape), share, 1)

    def mixed(images: jax.Array) -> jax.Array:
        return share * images + (1 - share) * jnp.roll(images, 1, axis=0)

    return mixed(blurred), mixed(sharp)


def _nearest_of_size(sharp: jax.Array, picture: jax.Array) -> jax.Array:
    """The sharp images at a picture's size, the pixels nearest to its own ones."""
    step = sharp.shape[1] // picture.shape[1]
    return sharp[:, step // 2 :: step, step // 2 :: step]


def _accumulated(gradient: Callable[..., Any], num_parts: int) -> Callable[..., Any]:
    """Makes a gradient of means over a batch work through the batch in parts."""

    def split(x):
        # Every part takes its images from all devices' shares, so that none travels.
        return x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1)

    def whole_gradient(params, model_state, *batch):
        def add_part(carry, part):
            total, model_state = carry
            (value, (mse, model_state)), grads = gradient(params, model_state, *part)
            return (jax.tree.map(jnp.add, total, grads), model_state), (value, mse)

        start = (jax.tree.map(jnp.zeros_like, params), model_state)
        parts = jax.tree.map(split, batch)
        (total, model_state), (values, mses) = jax.lax.scan(add_part, start, parts)
        grads = jax.tree.map(lambda x: x / num_parts, total)
        return (values.mean(), (mses.mean(), model_state)), grads

    return whole_gradient
