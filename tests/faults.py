"""Kills training at random moments and compares the end with that of an undisturbed run.

  python tests/faults.py --kills 100

Every run trains the same small network, alone or as two processes. It is killed (SIGKILL) or asked
to end (SIGTERM) while it starts, makes steps, writes a checkpoint or evaluates, and started again
until it is done; of two processes one is hit, and the other has to end within a minute. At the end
every number of its last checkpoint must equal the undisturbed run's, bit for bit, and so must its
evaluations. Exits with status 1 if any does not.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from small_runs import state_shapes

from jaxdeblur.convolutions import SWITCH
from jaxdeblur.workdir import checkpoints, settings

ROOT = Path(__file__).resolve().parents[1]
NUM_STEPS, SAVE_EVERY, EVAL_EVERY = 240, 10, 60
FLAGS = {
    "model_kwargs.num_channels": 16,
    "model_kwargs.num_blocks": 1,
    "patch_size": 16,
    "eval_patch_size": 128,
    "min_sigma": 0.0,
    "max_sigma": 1.0,
    "batch_size": 4,
    "eval_batch_size": 2,
    "eval_repeats": 8,
    "num_steps": NUM_STEPS,
    "log_every_steps": SAVE_EVERY,
    "checkpoint_every_steps": SAVE_EVERY,
    "eval_every_steps": EVAL_EVERY,
}
# Programs that compile quickly: every start compiles them.
ENVIRONMENT = os.environ | {SWITCH: "compiler", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
MOMENTS = ("start", "step", "checkpoint", "evaluation")
PEER_DEADLINE = 60  # seconds


@dataclasses.dataclass
class Job:
    """The processes of one start of a run."""

    workdir: Path
    processes: list[subprocess.Popen]
    logs: list[Path]

    @classmethod
    def start(cls, workdir: Path, count: int) -> Job:
        command = [sys.executable, "train.py", "--config", "configs/quickstart.py"]
        command += [f"--config.{key}={value}" for key, value in FLAGS.items()]
        command += ["--workdir", str(workdir)]
        if count > 1:
            command += [f"--coordinator_address=127.0.0.1:{free_port()}"]
            command += [
                f"--num_processes={count}",
                f"--initialization_timeout={PEER_DEADLINE - 15}",
            ]
        processes, logs = [], []
        for i in range(count):
            log = workdir.with_name(f"{workdir.name}.{i}.log")
            own = [*command, f"--process_id={i}"] if count > 1 else command
            with log.open("w") as file:
                processes.append(
                    subprocess.Popen(
                        own, cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=file, text=True
                    )
                )
            logs.append(log)
        return cls(workdir, processes, logs)

    def running(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def lines(self) -> list[dict]:
        path = self.workdir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, condition, timeout: float = 300) -> bool:
        """Whether the condition came before the end of a process."""
        deadline = time.monotonic() + timeout
        while self.running() and time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.002)
        return False

    def wait_for_moment(self, moment: str, rng: random.Random) -> bool:
        """Waits for a random moment of a kind; whether it came before the end of the job."""
        if moment == "start":
            deadline = time.monotonic() + rng.uniform(0, 8)
            return self.wait_for(lambda: time.monotonic() > deadline)
        already = len(self.lines())
        goal = already + rng.randint(1, 6)
        if moment == "step":
            return self.wait_for(lambda: len(self.lines()) >= goal) and pause(rng, 0.05)
        if moment == "checkpoint":
            folder = self.workdir / "checkpoints"
            if not self.wait_for(lambda: len(self.lines()) >= goal):
                return False
            return self.wait_for(lambda: any(folder.glob("*.orbax-checkpoint-tmp*")))

        def evaluates() -> bool:
            lines = self.lines()
            return len(lines) > already and evaluating(lines[-1])

        return self.wait_for(evaluates) and pause(rng, 0.2)

    def hit(self, number: int, which: signal.Signals) -> str | None:
        """Sends a signal to one process; returns what is wrong with how the job ended."""
        self.processes[number].send_signal(which)
        started = time.monotonic()
        for process in self.processes:
            try:
                process.wait(PEER_DEADLINE)
            except subprocess.TimeoutExpired:
                self.end()
                return f"a process went on for more than {PEER_DEADLINE} s after the kill"
        self.slowest = time.monotonic() - started
        statuses = [process.returncode for process in self.processes]
        if which == signal.SIGKILL:
            return None
        return self.judge_asked(statuses)

    def judge_asked(self, statuses: list[int]) -> str | None:
        """What is wrong with the end of a job that was asked to end."""
        text = "".join(log.read_text() for log in self.logs)
        if statuses == [0] * len(statuses):
            done = (self.workdir / "curves.png").exists()
            return None if "the same command goes on" in text or done else "no word how to go on"
        # Before JAX or Python listens, the signal ends a process as it ends any other.
        if -signal.SIGTERM in statuses and "training " not in text:
            return None
        return f"ended with {statuses} after SIGTERM:\n{text[-2000:]}"

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def evaluating(line: dict) -> bool:
    """Whether the newest line of a log is of a step whose evaluation has begun."""
    return line["step"] % EVAL_EVERY == 0 and "loss" in line


def pause(rng: random.Random, most: float) -> bool:
    time.sleep(rng.uniform(0, most))
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def result(workdir: Path) -> dict[str, object]:
    """A digest of the last checkpoint, and the evaluations."""
    shapes = state_shapes(ConfigDict(settings.read(workdir)))
    state = checkpoints.read_state(workdir, NUM_STEPS, shapes)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        "state": digest.hexdigest(),
        "evaluations": {x["step"]: x["eval/psnr"] for x in lines if "eval/psnr" in x},
    }


def finish(workdir: Path, count: int) -> None:
    job = Job.start(workdir, count)
    for process in job.processes:
        process.wait(600)
    statuses = [process.returncode for process in job.processes]
    if statuses != [0] * count:
        raise SystemExit(f"a run without kills ended with {statuses}: {job.logs[0].read_text()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="jaxdeblur-faults-") as folder:
        problems = kill_many(Path(folder), arguments.kills, rng)
    for problem in problems:
        print("FAILED:", problem)
    raise SystemExit(bool(problems))


def kill_many(folder: Path, kills: int, rng: random.Random) -> list[str]:
    expected = {}
    for count in (1, 2):
        finish(folder / f"undisturbed{count}", count)
        expected[count] = result(folder / f"undisturbed{count}")
    problems: list[str] = []
    tally: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    done = runs = 0
    while done < kills:
        runs += 1
        count = 1 + runs % 2
        workdir = folder / f"run{runs}"
        history = []
        while done < kills:
            job = Job.start(workdir, count)
            moment = MOMENTS[done % len(MOMENTS)]
            if not job.wait_for_moment(moment, rng):
                break  # it came to its end before
            which = rng.choice([signal.SIGKILL, signal.SIGTERM])
            problem = job.hit(rng.randrange(count), which)
            done += 1
            history.append(f"{which.name} at {moment}")
            tally[f"{count} process{'es' * (count - 1)}, {which.name}, {moment}"] += 1
            if problem:
                problems.append(f"{workdir.name} ({count} processes), {history}: {problem}")
                break
            slowest = max(slowest, job.slowest)
        for process in job.processes:
            process.wait(600)
        finish(workdir, count)
        if result(workdir) != expected[count]:
            problems.append(f"{workdir.name} ({count} processes) ended differently after {history}")
        print(f"run {runs}, {count} process(es): {', '.join(history) or 'no kill'}", flush=True)
    print(
        f"\n{done} kills in {runs} runs; {len(problems)} problems; the slowest end of a job "
        f"after a kill took {slowest:.1f} s"
    )
    for what, number in sorted(tally.items()):
        print(f"  {number:3d}  {what}")
    return problems


if __name__ == "__main__":
    main()
