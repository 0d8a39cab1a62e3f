"""Runs so small that tests can train them, and what is compared of runs."""

import json

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxdeblur.configs import quickstart
from jaxdeblur.training.state import make_parts


def tiny_config(**overrides):
    config = quickstart.get_config()
    config.model_kwargs.num_channels = 8
    config.model_kwargs.num_blocks = 1
    config.patch_size = config.eval_patch_size = 16
    config.min_sigma, config.max_sigma = 0.0, 1.0
    config.batch_size = config.eval_batch_size = 4
    config.num_steps = 6
    config.learning_rate = 2e-3
    config.log_every_steps = 2
    config.eval_every_steps = 3
    config.checkpoint_every_steps = 2
    config.eval_repeats = 1
    config.update(overrides)
    return config


def flags(config):
    """The command-line form of what `tiny_config` changes in the quickstart."""
    default, tiny = (flatten_dict(c.to_dict(), sep=".") for c in (quickstart.get_config(), config))
    return [f"--config.{key}={value}" for key, value in tiny.items() if value != default[key]]


def metrics_lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_equal_states(a, b):
    for (path, x), (_, y) in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree_util.tree_leaves_with_path(b), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def state_shapes(config, channels=3):
    """Shapes and types of a run's state, with which to read its checkpoints."""
    return jax.eval_shape(make_parts(config, 1, channels).init, jax.random.key(config.seed))
