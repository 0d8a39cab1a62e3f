"""The recipe for Slurm, under Slurm."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import one_node_slurm
import pytest
from small_runs import assert_equal_states, flags, metrics_lines, tiny_config

import jaxdeblur

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "slurm" / "train.sbatch"
STEPS = 150

# What JAX says when one of its own threads dies, which it rarely does when it hears SIGTERM
# (heap corruption in jaxlib 0.10). The job then begins again.
CRASHED = "JAX distributed service detected fatal errors"

# What a node without GPUs needs other than the script says.
ON_TWO_CORES = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1")


@pytest.fixture
def slurm(monkeypatch):
    # The script runs "python", as a user with an active environment has it.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with one_node_slurm.running() as slurm:
        yield slurm


def submit(slurm, workdir):
    config = tiny_config(
        num_steps=STEPS,
        patch_size=48,
        batch_size=8,
        log_every_steps=5,
        eval_every_steps=STEPS,
        checkpoint_every_steps=STEPS,  # never but at the end, or when asked to end
    )
    command = ["sbatch", "--parsable", *ON_TWO_CORES, f"--output={workdir}.log", str(SCRIPT)]
    command += ["configs/quickstart.py", str(workdir), *flags(config)]
    return slurm.run(*command, cwd=ROOT)


def output(workdir):
    log = Path(f"{workdir}.log")
    return log.read_text() if log.exists() else ""


def trains(workdir):
    file = workdir / "metrics.jsonl"
    return file.exists() and file.read_text().count("\n") >= 3


def saved_steps(workdir):
    return [int(folder.name) for folder in (workdir / "checkpoints").glob("[0-9]*")]


def final_parameters(workdir):
    return jaxdeblur.load(workdir / "checkpoints" / str(STEPS)).params


@pytest.mark.slow
def test_a_job_whose_process_crashes_begins_again(slurm, tmp_path):
    workdir = tmp_path / "crashed"
    try:
        job = submit(slurm, workdir)
        slurm.wait_for(job, "training", lambda _: trains(workdir), 200)
        processes = subprocess.check_output(["pgrep", "-f", f"train.py.*{workdir}"], text=True)
        pythons = [int(n) for n in processes.split() if "python" in os.readlink(f"/proc/{n}/exe")]
        os.kill(max(pythons), signal.SIGKILL)
        slurm.wait_for(job, "requeued", lambda job: job["Restarts"] == "1", 100)
    finally:
        print(output(workdir))


@pytest.mark.slow
def test_a_job_that_is_asked_to_end_is_requeued_and_ends_as_if_it_was_not(slurm, tmp_path):
    asked, undisturbed = tmp_path / "asked", tmp_path / "undisturbed"
    try:
        job = submit(slurm, asked)
        slurm.wait_for(job, "training", lambda _: trains(asked), 200)
        slurm.run("scancel", "--signal=TERM", job)  # as --signal has Slurm do near the time limit
        slurm.wait_for(job, "requeued", lambda job: job["Restarts"] == "1", 60)
        if CRASHED not in output(asked):
            (step,) = saved_steps(asked)
            assert 0 < step < STEPS
            assert output(asked).count("asked to end") == 1
        # While the first one waits, and after it where that takes longer.
        other = submit(slurm, undisturbed)
        for number in (job, other):
            slurm.wait_for(number, "done", lambda job: job["JobState"] == "COMPLETED", 300)
        assert slurm.job(job)["Restarts"] == "1"  # a crash counts as one too
        assert slurm.job(other)["Restarts"] == "0"
    finally:  # which pytest shows where the test fails
        print(output(asked), output(undisturbed))
    steps = [line["step"] for line in metrics_lines(asked)]
    assert steps == sorted(steps)
    assert_equal_states(final_parameters(asked), final_parameters(undisturbed))
