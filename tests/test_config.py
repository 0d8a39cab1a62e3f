import pytest
from ml_collections import ConfigDict

from jaxdeblur import config as configuration
from jaxdeblur.configs import atrous_cifar
from jaxdeblur.errors import InputError


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset", "cifar", "'cifar'; did you mean 'cifar10'"),
        ("dtype", "float16", "'float16'; did you mean 'bfloat16'"),
        ("loss", "l2", "'l2'.*'l1'"),
        ("schedule", "cosin", "did you mean 'cosine'"),
        ("grad_clip", "none", "choose from each, global"),
        ("model", "atrus_net", "did you mean 'atrous_net'"),
        ("batch_size", 0, "batch_size = 0 must be at least 1"),
        ("learning_rate", float("nan"), "learning_rate = nan"),
        ("learning_rate", -1.0, "learning_rate = -1.0 must be at least 0"),
        ("min_sigma", 4.0, "min_sigma = 4.0 is above config.max_sigma = 3.0"),
        ("ema_decay", 1.0, "ema_decay = 1.0 must be below 1"),
        ("adam_b2", 1.5, "adam_b2 = 1.5 must be below 1"),
        ("num_epochs", 0, "both 0"),
        ("patch_size", 33, "patch_size = 33 does not fit atrous_net: a multiple of 2"),
        ("patch_size", 8, "patch_size = 8 is too small for config.max_sigma = 3.0; 10 pixels"),
        ("eval_patch_size", 10, "eval_patch_size = 10 must be at least 11"),
        ("eval_repeats", 0, "eval_repeats = 0 must be at least 1"),
        ("grad_accum_steps", 0, "grad_accum_steps = 0 must be at least 1"),
        ("camera.motion_share", 1.2, "camera.motion_share = 1.2 must be from 0 to 1"),
        ("scene.layer_share", 1.2, "scene.layer_share = 1.2 must be from 0 to 1"),
        ("adam_b1", 1.0, "adam_b1 = 1.0 must be below 1"),
        ("adam_b1", -0.1, "adam_b1 = -0.1 must be at least 0"),
        ("weight_decay", -1e-3, "weight_decay = -0.001 must be at least 0"),
        ("final_learning_rate", float("inf"), "final_learning_rate = inf"),
        ("mixup", 1.5, "mixup = 1.5 must be at most 1, a probability"),
        ("mixup", -0.5, "mixup = -0.5 must be at least 0"),
        ("photo_share", 1.5, "photo_share = 1.5 must be at most 1, a share"),
        ("num_frames", 2, "num_frames = 2 must be 1 or 3"),
        ("effort", -1, "effort = -1 must be at least 0"),
        ("tile", "big", "tile = 'big' must be auto, off or a number of pixels"),
        ("tile", "-8", "tile = '-8' must be auto, off or a number of pixels"),
        ("loss", "negative_psrn", "did you mean 'negative_psnr'"),
        ("max_sigma", 1e308, "max_sigma = 1e.308 must be at most 1000"),
        (
            "batch_size",
            2**31 - 1,
            "batch_size = 2147483647 of config.patch_size = 32 pixels is more",
        ),
        ("patch_size", 2**30, "config.patch_size = 1073741824 pixels is more than any memory"),
    ],
)
def test_wrong_values_are_named_with_the_fix(key, value, message):
    config = atrous_cifar.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
        configuration.check(config)


def test_batch_size_must_divide_among_devices(monkeypatch):
    monkeypatch.setattr("jax.device_count", lambda: 3)
    with pytest.raises(InputError, match=r"batch_size = 32 is not divisible by the 3 devices.*33"):
        configuration.check(atrous_cifar.get_config())


@pytest.mark.parametrize(("devices", "parts", "fitting"), [(1, 3, 33), (4, 3, 36), (16, 4, 64)])
def test_batch_size_must_divide_into_the_parts_of_each_device(monkeypatch, devices, parts, fitting):
    monkeypatch.setattr("jax.device_count", lambda: devices)
    config = atrous_cifar.get_config()
    config.grad_accum_steps = parts
    config.eval_batch_size = 16
    message = f"batch_size = 32 .* {devices} devices times config.grad_accum_steps = {parts}; "
    with pytest.raises(InputError, match=f"{message}try {fitting}$"):
        configuration.check(config)
    config.batch_size = fitting
    configuration.check(config)


def test_model_fields_are_checked():
    config = atrous_cifar.get_config()
    config.model = "carlo_net"
    with pytest.raises(InputError, match=r"carlo_net has no field 'num_(channels|blocks)'"):
        configuration.check(config)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("maxim", "patch_size = 32 does not fit maxim: a multiple of 64, 64 at least"),
        ("nafnet", "patch_size = 40 does not fit nafnet: a multiple of 16, 1 at least"),
    ],
)
def test_patches_must_fit_the_network(model, message):
    config = atrous_cifar.get_config()
    with config.unlocked():
        config.model_kwargs = {}
    config.model, config.patch_size = model, 32 if model == "maxim" else 40
    with pytest.raises(InputError, match=message):
        configuration.check(config)


def test_photographs_among_single_frames_must_be_blurred_beforehand():
    config = atrous_cifar.get_config()
    config.num_frames, config.photo_dir = 1, "photos"
    with pytest.raises(InputError, match="degradation = 'gaussian' is made in the step"):
        configuration.check(config)
    config.degradation = "scene"
    configuration.check(config)


@pytest.mark.parametrize("tile", ["auto", "off", "512"])
def test_a_tile_is_a_word_or_a_number(tile):
    config = atrous_cifar.get_config()
    config.tile = tile
    configuration.check(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", 10**20, "config.seed = 100000000000000000000 must be at most 4294967295"),
        ("seed", -1, "config.seed = -1 must be at least 0"),
        ("seed", True, "config.seed = True must be a whole number"),
        ("seed", 1.5, "config.seed = 1.5 must be a whole number"),
        ("batch_size", 0, "config.batch_size = 0 must be at least 1"),
        ("batch_size", "32", "config.batch_size = '32' must be a whole number"),
        ("num_steps", 2**31, "config.num_steps = 2147483648 must be at most 2147483647"),
        ("learning_rate", float("nan"), "config.learning_rate = nan must be finite"),
        ("learning_rate", "fast", "config.learning_rate = 'fast' must be a number"),
        ("learning_rate", 10**400, "config.learning_rate = .* must be at most"),
        ("brightness", float("inf"), "config.brightness = inf must be finite"),
        ("loss", ["l1"], r"config.loss = \['l1'\] must be a text"),
        ("dataset", None, "config.dataset = None must be a text"),
        ("flip", 1, "config.flip = 1 must be True or False"),
        ("camera", 3, "config.camera = 3 must be an object of keys"),
        ("model_kwargs", [], r"config.model_kwargs = \[\] must be an object of keys"),
        ("batchsize", 32, "config.batchsize is unknown; did you mean 'batch_size'"),
        ("loss", "x" * 500, "config.loss = 'xxx"),
    ],
)  # fmt: skip
def test_values_of_another_type_or_size_are_named(key, value, message):
    values = atrous_cifar.get_config().to_dict()
    values[key] = value
    with pytest.raises(InputError, match=message):
        configuration.check(ConfigDict(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"camera": {"motion_share": "all"}},
            "config.camera.motion_share = 'all' must be a number",
        ),
        ({"scene": {"layers": 1}}, "config.scene.layers is unknown; did you mean 'layer_share'"),
        ({"model_kwargs": {"name": "x"}}, "config.model_kwargs = .* a field that no network has"),
        ({"model_kwargs": {"dtype": "float32"}}, "model_kwargs.dtype = 'float32' .* config.dtype"),
    ],
)
def test_nested_values_are_named(change, message):
    values = atrous_cifar.get_config().to_dict()
    for key, fields in change.items():
        values[key] |= fields
    with pytest.raises(InputError, match=message):
        configuration.check(ConfigDict(values))


def test_a_configuration_of_ones_own_needs_every_key():
    values = atrous_cifar.get_config().to_dict()
    del values["ema_decay"]
    with pytest.raises(
        InputError, match=r"config.ema_decay is missing; begin with configs/default"
    ):
        configuration.check(ConfigDict(values))
