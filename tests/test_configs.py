import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxdeblur import config as configuration
from jaxdeblur.configs import default
from jaxdeblur.models import create_model

NAMES = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "configs").glob("*.py")
    if path.stem != "__init__" and not path.stem.endswith("_recipe")
)

# The published experiments: network, epochs, loss, parameters, and the batch.
PUBLISHED = {
    "carlo_cifar": ("carlo_net", 40, "mse", 2_663_555, 32),
    "kaist_cifar": ("kaist_net", 30, "l1", 11_590_813, 32),
    "atrous_cifar": ("atrous_net", 29, "l1", 12_571_011, 32),
    "kaist_reds": ("kaist_net", 55, "l1", 11_595_613, 4),
    "atrous_reds": ("atrous_net", 71, "l1", 24_433_539, 4),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_valid_locked_and_has_a_card(name):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    configuration.check(config)
    assert config.is_locked
    assert set(config) == set(default.get_config())
    if name != "default":
        assert f"--config configs/{name}.py" in module.__doc__
        assert "What:" in module.__doc__
        assert "Source:" in module.__doc__


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_as_published(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    model, epochs, loss, count, batch_size = PUBLISHED[name]
    module = create_model(config.model, **config.model_kwargs)
    channels = {"cifar10": 3, "reds": 9}[config.dataset]
    blurred = jnp.zeros((1, 32, 32, channels))
    params = jax.eval_shape(module.init, jax.random.key(0), blurred)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    assert (config.model, config.num_epochs, config.loss) == (model, epochs, loss)
    assert (config.batch_size, config.num_steps) == (batch_size, 0)
    assert (config.grad_clip, config.grad_clip_norm) == ("each", 1.0)
    assert not config.ema_decay
    if name.endswith("_cifar"):
        assert (config.dataset, config.patch_size) == ("cifar10", 32)
        assert not any((config.fresh_sigma, config.flip, config.rotate))
    else:
        assert (config.dataset, config.patch_size) == ("reds", 256)
        assert (config.flip, config.rotate, config.frame_shift) == (True, True, 2)
        assert 0 < config.brightness <= 0.1


@pytest.mark.parametrize(
    ("name", "published"),
    [
        (
            "nafnet_gopro",  # options/train/GoPro/NAFNet-width32.yml, and the paper's weight decay
            {
                "model": "nafnet",
                "batch_size": 32,
                "num_steps": 200_000,
                "loss": "negative_psnr",
                "learning_rate": 1e-3,
                "adam_b1": 0.9,
                "adam_b2": 0.9,
                "weight_decay": 1e-3,
                "grad_clip_norm": 0.01,
                "mixup": 0.0,
            },
        ),
        (
            "maxim_gopro",
            {
                "model": "maxim",
                "loss": "charbonnier_frequency",
                "learning_rate": 2e-4,
                "adam_b1": 0.9,
                "adam_b2": 0.999,
                "weight_decay": 0.0,
                "mixup": 0.5,
            },
        ),
    ],
)
def test_configs_of_others_are_as_published(name, published):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert {key: config[key] for key in published} == published
    assert (config.dataset, config.num_frames, config.patch_size) == ("gopro", 1, 256)
    assert (config.flip, config.rotate) == (True, True)
    assert (config.schedule, config.final_learning_rate) == ("cosine", 1e-7)
    assert (config.grad_clip, config.warmup_steps) == ("global", 0)
    assert config.eval_patch_size == 0


def test_every_key_is_explained():
    lines = Path(default.__file__).read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if line.strip().startswith("config.")]
    assert len(keys) == len(default.get_config())
    for i in keys:
        above = lines[i - 1].strip()
        explained = "#" in lines[i] or above.startswith(("#", "config."))
        assert explained, lines[i]
