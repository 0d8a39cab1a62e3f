import hashlib
import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdeblur import training, weights
from jaxdeblur.configs import quickstart
from jaxdeblur.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_shipping_keeps_the_logs_of_all_runs_that_led_to_the_weights(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    ship = importlib.import_module("ship")
    monkeypatch.setattr(ship, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setattr(ship, "LOGS", tmp_path / "logs")
    (tmp_path / "pretrained").mkdir()
    config = quickstart.get_config()
    config.num_steps, config.eval_every_steps, config.batch_size = 1, 1, 1
    config.patch_size = config.eval_patch_size = 16
    config.model_kwargs.num_channels, config.model_kwargs.num_blocks = 4, 1
    runs = [tmp_path / "home" / "runs" / name for name in ("first", "second")]
    training.train_and_evaluate(config, str(runs[0]))
    config.init_from = str(runs[0] / "checkpoints" / "1")
    training.train_and_evaluate(config, str(runs[1]))

    with pytest.raises(InputError, match="no-run"):
        ship.ship([tmp_path / "no-run", runs[1]], "small")
    assert not list((tmp_path / "pretrained").iterdir())

    ship.ship(runs, "small")
    card = json.loads((tmp_path / "pretrained" / "small.json").read_text())
    file = tmp_path / "pretrained" / "small.safetensors"
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    shipped, trained = weights.load(file), weights.load(runs[1] / "checkpoints" / "1")
    jax.tree.map(np.testing.assert_array_equal, shipped.params, trained.params)
    first, second = tmp_path / "logs" / "small" / "1", tmp_path / "logs" / "small"
    assert json.loads((first / "config.json").read_text())["init_from"] == ""
    # No folder of the machine that trained.
    assert json.loads((second / "config.json").read_text())["init_from"] == "first/checkpoints/1"
    for log in (first, second):
        assert "eval/psnr" in (log / "metrics.jsonl").read_text()

    ship.ship(runs, "both", runs[0] / "checkpoints" / "1")
    shipped = weights.load(tmp_path / "pretrained" / "both.safetensors")
    trained = weights.load(runs[0] / "checkpoints" / "1")
    jax.tree.map(np.testing.assert_array_equal, shipped.params, trained.params)
