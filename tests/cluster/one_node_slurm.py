"""Slurm on this machine alone, for the time of a test: the real daemons, one node, no cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scancel",
    "scontrol",
    "sinfo",
)

# Ports, sockets, keys and folders of its own, so that nothing in /etc is needed or changed.
# cred_expire is also how long Slurm lets a requeued job wait, by default two minutes; 5 is the
# least that it takes. sched_interval would let it wait up to a minute more.
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
FirstJobId={first_job}
JobRequeue=1
KillWait=20
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclasses.dataclass(frozen=True)
class Slurm:
    """A running Slurm.

    Attributes:
      folder: its files, among them the daemons' logs.
      environ: the environment in which Slurm's commands speak to it.
    """

    folder: Path
    environ: dict[str, str]

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Returns what one of Slurm's commands prints."""
        done = subprocess.run(
            command, cwd=cwd, env=self.environ, text=True, capture_output=True, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """Returns what Slurm knows of a job, by Slurm's names: JobState, Restarts, ..."""
        words = self.run("scontrol", "--oneliner", "show", "job", number).split()
        fields = [word.partition("=") for word in words]
        return {name: value for name, _, value in fields}

    def wait_for(
        self, number: str, what: str, reached: Callable[[dict[str, str]], bool], seconds: float
    ) -> dict[str, str]:
        """Waits until a job is where it should be.

        Args:
          number: of the job.
          what: what is waited for, for the message of the failure.
          reached: whether the job, as `job` returns it, is there.
          seconds: how long to wait.

        Raises:
          AssertionError: it has ended elsewhere, or it takes too long.
        """
        deadline = time.monotonic() + seconds
        while not reached(job := self.job(number)):
            ended = job["JobState"] in ("CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT")
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"job {number} is not {what}: {job}")
            time.sleep(0.2)
        return job

    def logs(self) -> str:
        """Returns the ends of the daemons' logs."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {x.name}\n" + "\n".join(_last_lines(x)) for x in files)


@contextlib.contextmanager
def running() -> Iterator[Slurm]:
    """Starts Slurm for the body, and leaves no process or file of it behind.

    Skips the test where Slurm is not installed or this is not root, as its daemons demand. The
    daemons' logs are printed at the end, which pytest shows of tests that fail.
    """
    _skip_where_impossible()
    # Not one of pytest's temporary folders: a socket's path may have no more than 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    slurm = Slurm(folder, {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")})
    with contextlib.ExitStack() as stack:
        _guard(stack, folder)
        stack.callback(lambda: print(slurm.logs()))
        _configure(folder)
        munge = [f"--{x}-file={folder}/munge.{x}" for x in ("key", "pid", "seed")]
        _start(stack, slurm, "munged", "--foreground", f"--socket={folder}/munge.socket", *munge)
        _await("munged", (folder / "munge.socket").exists)
        _start(stack, slurm, "slurmctld", "-D")
        _start(stack, slurm, "slurmd", "-D", "-N", _host())
        _await("the node", lambda: _node_is_idle(slurm))
        stack.callback(_end_jobs, slurm)
        yield slurm


def _skip_where_impossible() -> None:
    missing = [program for program in _PROGRAMS if _path(program) is None]
    if missing:
        pytest.skip(f"needs Slurm and MUNGE; there is no {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("needs root, which Slurm's daemons want")


def _path(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _host() -> str:
    return socket.gethostname().partition(".")[0]  # Slurm looks for the short one


def _guard(stack: contextlib.ExitStack, folder: Path) -> None:
    """Starts a process that clears away what is left at the end, also where the tests are killed.

    It notices by its standard input, which then closes.
    """
    command = [sys.executable, __file__, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    stack.callback(process.communicate)


def _configure(folder: Path) -> None:
    folder.chmod(0o755)  # munged: the socket must be within everyone's reach
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller_port, node_port = _free_ports(2)
    # JAX takes the port of its coordinator from the job's number.
    first_job = 1 + secrets.randbelow(50_000)
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            host=_host(),
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
            first_job=first_job,
        )
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(stack: contextlib.ExitStack, slurm: Slurm, program: str, *arguments: str) -> None:
    """Starts a daemon in the foreground, to be ended by the stack."""
    path = _path(program)
    assert path is not None
    with (slurm.folder / f"{program}.log").open("w") as log:
        process = subprocess.Popen(
            [path, *arguments],
            env=slurm.environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests, which then end it
        )
    stack.callback(_end, process)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await(what: str, ready: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} is not ready after {seconds} s"
        time.sleep(0.1)


def _node_is_idle(slurm: Slurm) -> bool:
    command = ["sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(command, env=slurm.environ, text=True, capture_output=True, timeout=60)
    return done.stdout.strip() == "idle"  # it fails where the controller is not up yet


def _end_jobs(slurm: Slurm) -> None:
    """Ends what still runs while there are daemons that can end it."""
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        slurm.run("scancel", "--user=root")
        slurm.run("scancel", "--full", "--signal=KILL", "--user=root")
        _await("the end of the jobs", lambda: not slurm.run("squeue", "--noheader"), 15)


def _last_lines(file: Path, count: int = 30) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-count:]


def _end_processes(folder: Path) -> bool:
    """Ends every process that was started under this Slurm; whether there was one."""
    mark, found = f"SLURM_CONF={folder}/slurm.conf\0".encode(), False
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
                found = True
    return found


if __name__ == "__main__":  # the process of `_guard`
    sys.stdin.read()
    _folder = Path(sys.argv[1])
    while _end_processes(_folder):  # again, for those that they had just started
        time.sleep(0.1)
    shutil.rmtree(_folder)
