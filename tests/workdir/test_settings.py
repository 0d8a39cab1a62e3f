import json

import pytest

from jaxdeblur.configs import atrous_cifar
from jaxdeblur.errors import InputError
from jaxdeblur.workdir import settings


def test_workdir_is_claimed_once(tmp_path):
    config = atrous_cifar.get_config()
    settings.check(tmp_path / "run", config.to_dict())
    assert not (tmp_path / "run").exists()
    settings.claim(tmp_path / "run", config.to_dict())
    file = tmp_path / "run" / "config.json"
    assert json.loads(file.read_text())["batch_size"] == 32
    settings.check(tmp_path / "run", config.to_dict())
    config.data_dir = "elsewhere"
    config.shard_state = True
    config.effort, config.tile = 1, "off"  # of evaluations alone
    settings.check(tmp_path / "run", config.to_dict())
    before = file.read_bytes()
    settings.claim(tmp_path / "run", config.to_dict())
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value"), [("model_kwargs", {"num_blocks": 2}), ("grad_accum_steps", 2), ("seed", 1)]
)
def test_what_changes_the_parameters_must_stay_in_a_workdir(tmp_path, key, value):
    config = atrous_cifar.get_config()
    settings.claim(tmp_path, config.to_dict())
    with config.unlocked():
        config[key] = value
    with pytest.raises(InputError, match=rf"holds a run with config.{key} = .* another --workdir"):
        settings.check(tmp_path, config.to_dict())


def test_tuples_are_the_lists_that_a_file_has_of_them(tmp_path):
    config = atrous_cifar.get_config()
    with config.unlocked():
        config.model_kwargs = {"encoder_blocks": (1, 2)}
    settings.claim(tmp_path, config.to_dict())
    settings.check(tmp_path, config.to_dict())
    config.model_kwargs.encoder_blocks = (1, 3)
    with pytest.raises(InputError, match=r"\{'encoder_blocks': \[1, 2\]\}, not .*\[1, 3\]"):
        settings.check(tmp_path, config.to_dict())


def test_a_damaged_or_missing_config_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        settings.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        settings.read(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="is damaged"):
        settings.read(tmp_path)
