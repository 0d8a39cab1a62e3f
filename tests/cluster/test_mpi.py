"""Training under mpirun, as cluster/mpi.md says."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import assert_equal_states, flags, tiny_config

import jaxdeblur

ROOT = Path(__file__).parents[2]
STEPS = 300  # more than a fast machine takes in what mpirun waits before it passes SIGTERM on
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
    return [sys.executable, "train.py", *arguments, "--preempted_status=75"]


def mpirun_command(workdir):
    command = ["mpirun", "-n", "2", "--mca", "odls_base_sigkill_timeout", str(WAIT)]
    command += ["--oversubscribe", "--bind-to", "none"]  # whatever this machine has
    if os.geteuid() == 0:
        command += ["--allow-run-as-root"]
    return [*command, *train_command(workdir)]


@contextlib.contextmanager
def started(command, **environ):
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environ})
    try:
        yield process
    finally:
        process.terminate()  # not kill, from which mpirun's ranks would not learn
        process.wait(60)


def run(command, **environ):
    with started(command, **environ) as process:
        assert process.wait(300) == 0


def wait_for_training(process, workdir, seconds=200):
    """Waits until a run has trained, or gone on."""

    def lines():
        file = workdir / "metrics.jsonl"
        return file.read_text().count("\n") if file.exists() else 0

    before, deadline = lines(), time.monotonic() + seconds
    while lines() < before + 3:
        assert process.poll() is None, "it ended before it could be asked to"
        assert time.monotonic() < deadline, f"it does not train after {seconds} s"
        time.sleep(0.05)


def last_step(workdir):
    return max(int(folder.name) for folder in (workdir / "checkpoints").glob("[0-9]*"))


def final_parameters(workdir):
    return jaxdeblur.load(workdir / "checkpoints" / str(STEPS)).params


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("mpi") / "finished"
    run(mpirun_command(workdir))
    return workdir


def test_two_processes_train_like_one_with_two_devices(finished, tmp_path):
    one = tmp_path / "one"
    run(train_command(one), JAX_NUM_CPU_DEVICES="2")
    for x, y in zip(
        jax.tree.leaves(final_parameters(finished)),
        jax.tree.leaves(final_parameters(one)),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)


def test_a_run_that_is_asked_to_end_saves_and_goes_on_to_the_same_end(finished, tmp_path):
    asked = tmp_path / "asked"
    with started(mpirun_command(asked)) as process:
        wait_for_training(process, asked)
        subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=True)  # its ranks
        assert process.wait(60) == 75
    first = last_step(asked)
    with started(mpirun_command(asked)) as process:
        wait_for_training(process, asked)
        process.terminate()
        assert process.wait(60) == 1  # mpirun's own, whatever that of the ranks
    second = last_step(asked)
    assert 0 < first < second < STEPS
    run(mpirun_command(asked))
    assert_equal_states(final_parameters(asked), final_parameters(finished))
