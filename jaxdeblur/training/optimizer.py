"""The optimizer: Adam, its learning rate, its decay of weights and the clipping of gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def make_optimizer(config: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Adam behind gradient clipping, at a constant or cosine rate after a linear warm-up."""
    after_warmup = num_steps - config.warmup_steps
    if config.schedule == "cosine":
        share = config.final_learning_rate / config.learning_rate if config.learning_rate else 0
        rate = optax.cosine_decay_schedule(config.learning_rate, max(after_warmup, 1), share)
    else:
        rate = optax.constant_schedule(config.learning_rate)
    if config.warmup_steps:
        warmup = optax.linear_schedule(0, config.learning_rate, config.warmup_steps)
        rate = optax.join_schedules([warmup, rate], [config.warmup_steps])
    # Without weight decay AdamW is Adam.
    adam = optax.adamw(rate, b1=config.adam_b1, b2=config.adam_b2, weight_decay=config.weight_decay)
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
