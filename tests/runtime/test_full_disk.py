"""Disks that fill up while a run saves: it ends with a message, and what was saved stays whole."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import flags, tiny_config

import jaxdeblur

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def train(workdir, *prefix):
    # The average makes a fourth copy of the parameters: 0.8 MB a checkpoint.
    config = tiny_config(num_steps=20, eval_every_steps=10, checkpoint_every_steps=4)
    config.model_kwargs.num_channels = 32
    command = [
        *prefix,
        sys.executable,
        "train.py",
        "--config",
        "configs/quickstart.py",
        *flags(config),
    ]
    command += ["--workdir", str(workdir)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def parameters(workdir, step):
    return jax.tree.leaves(jaxdeblur.load(workdir / "checkpoints" / str(step)).params)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert train(workdir).returncode == 0
    return parameters(workdir, 20)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def assert_told(ended, what):
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"could not be saved ({what}" in ended.stderr
    assert "last good checkpoint: step " in ended.stderr


def test_a_full_disk_ends_the_run_which_goes_on_when_there_is_room(
    small_disk, undisturbed, tmp_path
):
    ended = train(small_disk / "run")
    assert_told(ended, "no space left")
    step = int(ended.stderr.split("last good checkpoint: step ")[1].split(".")[0])
    assert step >= 4
    assert all(np.isfinite(x).all() for x in parameters(small_disk / "run", step))
    moved = tmp_path / "moved"
    shutil.copytree(small_disk / "run", moved)
    again = train(moved)
    assert again.returncode == 0, again.stderr
    assert f"going on after step {step}" in again.stderr
    for x, y in zip(parameters(moved, 20), undisturbed, strict=True):
        np.testing.assert_array_equal(x, y)


def test_files_that_may_not_grow_end_the_run(tmp_path):
    ended = train(tmp_path, "bash", "-c", 'ulimit -f 100 && exec "$@"', "bash")  # kilobytes
    assert ended.returncode == 1, ended.stderr
    assert "could not be saved" in ended.stderr
    assert "last good checkpoint: there is none yet" in ended.stderr
    assert train(tmp_path).returncode == 0
