"""The scripts and the command as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxdeblur
from jaxdeblur.evaluation import tables

ROOT = Path(__file__).parents[1]


def run(*arguments, **kwargs):
    # One thread per process is enough here, and the paths are those of a user in the checkout.
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.lerning_rate=1"], "'lerning_rate' is unknown; did you mean 'learning_rate'?"),
        (["--config.batch_size=many"], "--config.batch_size=many"),
        (["--config.dataset=photos", "--config.data_dir=nowhere"], "data_dir = 'nowhere'"),
        (["--config.dataset=cifar10", "--config.data_dir=nowhere"], "data_dir = 'nowhere'"),
        (["extra"], "unexpected argument 'extra'"),
    ],
)
def test_bad_input_to_train_is_one_line_and_writes_nothing(arguments, message, tmp_path):
    workdir = tmp_path / "run"
    result = run("train.py", "--config", "configs/quickstart.py", "--workdir", workdir, *arguments)
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in result.stderr
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "configs/nothing.py"], "configs/nothing.py"),
        (["--config", "configs/quickstart.py", "--checkpoint", "nothing"], "'nothing'"),
        (["--config", "configs/quickstart.py", "--workdir", "a", "--checkpoint", "b"], "one of"),
        (["--config", "configs/quickstart.py", "--table", "README.md"], "'README.md'"),
    ],
)
def test_bad_input_to_eval_is_one_line(arguments, message, tmp_path):
    result = run("eval.py", *arguments, "--output", tmp_path / "out")
    assert result.returncode == 2
    assert message in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_eval_without_weights_reports_the_blurred_images(tmp_path):
    result = run(
        "eval.py", "--config", "configs/quickstart.py", "--output", tmp_path,
        "--table", tmp_path / "table.csv", "--config.eval_patch_size=32",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "results.json").read_text())
    assert f"{summary['blurred']['psnr']:.2f}" in result.stdout
    assert "8 images" in result.stdout
    whole, *parts = tables.read(tmp_path / "table.csv")
    assert whole.blurred_psnr == pytest.approx(summary["blurred"]["psnr"], rel=1e-5)
    assert [part.num_images for part in parts] == [2, 2, 2, 2]


def test_convert_keras_writes_what_load_takes(shared_data, tmp_path):
    parity = shared_data / "parity"
    output = tmp_path / "atrous.safetensors"
    command = [
        "-m", "jaxdeblur.cli", "convert", "keras", parity / "atrous_net_video.model.json",
        parity / "atrous_net_video.weights.h5", output,
    ]  # fmt: skip
    result = run(*command)
    assert result.returncode == 0, result.stderr
    deblur = jaxdeblur.load(output)
    arrays = np.load(parity / "atrous_net_video.npz")
    restored = deblur(arrays["input"])
    np.testing.assert_allclose(restored, np.clip(arrays["output"], 0, 1), atol=1e-4)

    again = run(*command)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert run(*command, "--overwrite").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "keras", "a.json", "b.h5", "c"], "a.json"),
        (["prepare", "cifar10", "--archive", "nothing.tar.gz"], "nothing.tar.gz"),
        (["restore"], "restore"),
        ([], "COMMAND"),
    ],
)
def test_bad_input_to_the_command_is_one_line(arguments, message):
    result = run("-m", "jaxdeblur.cli", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_models_lists_the_published_sizes():
    result = run("-m", "jaxdeblur.cli", "models")
    assert result.returncode == 0, result.stderr
    for count in ("2,663,555", "11,590,813", "12,571,011", "24,371,331"):
        assert count in result.stdout
