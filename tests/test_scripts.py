"""The scripts and the command as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxdeblur
from jaxdeblur import cli
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
def test_bad_input_to_train_is_one_line_and_writes_nothing(
    arguments, message, tmp_path, run_script
):
    workdir = tmp_path / "run"
    result = run_script(
        "train.py", "--config", "configs/quickstart.py", "--workdir", workdir, *arguments
    )
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
def test_bad_input_to_eval_is_one_line(arguments, message, tmp_path, run_script):
    result = run_script("eval.py", *arguments, "--output", tmp_path / "out")
    assert result.returncode == 2
    assert message in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_script_itself_tells_of_bad_input():
    result = run("train.py", "--config", "configs/quickstart.py", "--workdir", "x", "--config.a=1")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_wrong_configuration_lists_those_there_are(command, capsys):
    for arguments in (["atrous_cifr"], ["--config", "configs/atrous_cifr.py"], []):
        with pytest.raises(SystemExit) as end:
            cli.main([command, *arguments, "--workdir", "nowhere"])
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        for name in ("quickstart", "atrous_cifar", "kaist_reds_small"):
            assert name in line
        assert "recipe" not in line
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"def get_config(:\n", "SyntaxError"),
        (b"x = 1\n", "KeyError: 'get_config'"),
        (b"def get_config():\n    raise RuntimeError('oh')\n", "RuntimeError: oh"),
        (b"import nothing_there\n", "No module named 'nothing_there'"),
        (b"def get_config():\n    return 5\n", "get_config() returns int"),
        (b"\xff\xfe\x00", "Error: "),
    ],
)
def test_a_file_that_is_no_configuration_is_told_in_a_line(content, told, tmp_path, capsys):
    (tmp_path / "mine.py").write_bytes(content)
    with pytest.raises(SystemExit) as end:
        cli.main(["train", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "run")])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert "mine.py" in line


def test_training_needs_a_workdir(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "quickstart"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: --workdir is missing")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("\n\ndef get_config(:\n", "mine.py', line 3: SyntaxError"),
        ("\n\n\nimport nothing_there\n", "mine.py', line 4: ModuleNotFoundError"),
        ("def get_config():\n    x = 1\n    return x.y\n", "mine.py', line 3: AttributeError"),
        (
            "def get_config():\n    return f()\n\n\ndef f():\n    assert 0\n",
            "mine.py', line 6: Ass",
        ),
        ("import json\njson.loads('')\n", "mine.py', line 2: JSONDecodeError"),
        ("import sys\nsys.exit('bye')\n", "mine.py', line 2: SystemExit: bye"),
        ("def get_config():\n    return get_config()\n", "mine.py', line 2: RecursionError"),
        (
            "from jaxdeblur.configs import quickstart as q\n\n\ndef get_config():\n"
            "    c = q.get_config()\n    c.bach_size = 3\n    return c\n",
            "mine.py', line 6: AttributeError",
        ),
        (
            "from jaxdeblur.configs import quickstart as q\n\n\ndef get_config():\n"
            "    c = q.get_config()\n    c.batch_size = 'many'\n    return c\n",
            "mine.py', line 6: TypeError",
        ),
        (
            "from ml_collections import ConfigDict\nget_config = lambda: ConfigDict({'a': 1})\n",
            "config.a is unknown",
        ),
    ],
)
def test_an_error_of_a_configuration_is_told_with_its_line(content, told, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(SystemExit) as end:
        cli.main(["train", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "run")])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.seed=100000000000000000000", "config.seed = 100000000000000000000 must be at"),
        ("--config.seed=-1", "config.seed = -1 must be at least 0"),
        ("--config.seed=1.5", "seed"),
        ("--config.batch_size=0", "config.batch_size = 0 must be at least 1"),
        ("--config.batch_size=", "batch_size"),
        ("--config.learning_rate=nan", "config.learning_rate = nan must be finite"),
        ("--config.learning_rate=1e400", "config.learning_rate = inf must be finite"),
        ("--config.learning_rate=fast", "learning_rate"),
        ("--config.patch_size=1000000000", "config.patch_size = 1000000000 pixels is more than"),
        ("--config.patch_size=16384", "patch_size = 16384 is larger than"),
        ("--config.camera.nothing=1", "nothing"),
        ("--config.camera=1", "camera"),
        ("--config.flip=perhaps", "flip"),
        ("--config.model_kwargs.num_blocks=many", "num_blocks"),
        ("--config.model_kwargs.num_blocks=-1", "num_blocks = -1"),
        ("--workdir=~nosuchuser/x", "workdir = '~nosuchuser/x': there is no home folder"),
        ("--workdir=" + "x" * 300, "cannot be used (File name too long)"),
    ],
)
def test_wrong_flags_are_told_in_a_line(flag, told, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "quickstart", "--workdir", str(tmp_path / "run"), flag])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not list(tmp_path.iterdir())


def test_help_names_flags_and_configurations(capsys):
    for command in ("train", "eval"):
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--help"])
        assert end.value.code == 0
        told = capsys.readouterr().out
        assert "--workdir" in told
        assert "quickstart" in told


@pytest.mark.slow
def test_away_from_the_checkout_the_command_trains_and_evaluates(tmp_path):
    """By the name of a configuration, and by a file of one's own that starts from it."""
    own = tmp_path / "mine.py"
    own.write_text(
        "from jaxdeblur.configs import quickstart\n\n\n"
        "def get_config():\n"
        "    config = quickstart.get_config()\n"
        "    config.model_kwargs.num_channels, config.model_kwargs.num_blocks = 4, 1\n"
        "    config.patch_size = config.eval_patch_size = 16\n"
        "    config.num_steps = config.eval_every_steps = 2\n"
        "    return config\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in (
        ["train", "mine.py", "--workdir", "run", "--config.batch_size=2"],
        ["eval", "quickstart", "--workdir", "run", "--config.eval_patch_size=16"],
    ):
        command = [sys.executable, "-m", "jaxdeblur", *arguments]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
    assert "8 images" in result.stdout


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
        "-m", "jaxdeblur", "convert", "keras", parity / "atrous_net_video.model.json",
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
def test_bad_input_to_the_command_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
