"""Training under mpirun, by the commands of cluster/mpi.md."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from test_training import assert_equal_states, flags, metrics_lines, tiny_config

import jaxdeblur

ROOT = Path(__file__).parents[2]
STEPS = 400  # more than a fast machine takes in what mpirun waits before it passes SIGTERM on
WAIT = 3  # seconds that mpirun waits, twice

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun"),
]


def train_command(workdir):
    config = tiny_config(
        num_steps=STEPS,
        patch_size=48,
        batch_size=8,
        log_every_steps=5,
        eval_every_steps=STEPS,
        checkpoint_every_steps=STEPS,  # never but at the end, or when asked to end
    )
    arguments = ["--config", "configs/quickstart.py", "--workdir", str(workdir), *flags(config)]
    return [sys.executable, "train.py", *arguments]


def mpirun_command(workdir):
    command = ["mpirun", "-n", "2", "--mca", "odls_base_sigkill_timeout", str(WAIT)]
    command += ["--oversubscribe", "--bind-to", "none"]  # whatever this machine has
    if os.geteuid() == 0:
        command += ["--allow-run-as-root"]
    return [*command, *train_command(workdir)]


def run(command, **environ):
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environ}, check=True, timeout=300)


def final_parameters(workdir):
    return jaxdeblur.load(workdir / "checkpoints" / str(STEPS)).params


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("mpi") / "finished"
    run(mpirun_command(workdir))
    return workdir


def test_two_processes_train_like_one_with_two_devices(finished, tmp_path):
    one = tmp_path / "one"
    run(train_command(one), XLA_FLAGS="--xla_force_host_platform_device_count=2")
    for x, y in zip(
        jax.tree.leaves(final_parameters(finished)),
        jax.tree.leaves(final_parameters(one)),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)


def test_a_run_that_is_asked_to_end_saves_and_goes_on_to_the_same_end(finished, tmp_path):
    asked = tmp_path / "asked"
    process = subprocess.Popen(mpirun_command(asked), cwd=ROOT)
    try:
        wait_for_training(process, asked)
        process.terminate()
        assert process.wait(60) == 1  # mpirun's, whatever that of its processes is
    finally:
        process.kill()
    (step,) = [int(folder.name) for folder in (asked / "checkpoints").glob("[0-9]*")]
    assert 0 < step < STEPS
    run(mpirun_command(asked))
    assert_equal_states(final_parameters(asked), final_parameters(finished))


def wait_for_training(process, workdir, seconds=200):
    deadline = time.monotonic() + seconds
    while not ((workdir / "metrics.jsonl").exists() and len(metrics_lines(workdir)) >= 3):
        assert process.poll() is None, "it ended before it could be asked to"
        assert time.monotonic() < deadline, f"it does not train after {seconds} s"
        time.sleep(0.05)
