"""The processes of one job: who started them, how they find each other, how they end.

Nothing here touches a device before `joined` has connected the processes, as JAX demands.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from jaxdeblur.errors import (
    TOLD,
    InputError,
    exit_status,
    naming_extra,
    prepare_streams,
    reported,
    tell,
)

# Where a launcher tells a process its number and how many there are. Slurm means srun: sbatch runs
# its script once.
_LAUNCHERS = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("MPI", "PMI_RANK", "PMI_SIZE"),  # MPICH and Intel MPI
    ("the environment", "JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
    ("Kubernetes", "JOB_COMPLETION_INDEX", "JAX_NUM_PROCESSES"),  # an indexed job
)
_KNOWN_TO_JAX = ("Open MPI", "Slurm")  # which finds the coordinator for these by itself

# A process's number on its machine, of launchers for which JAX does not look: one GPU each.
_LOCAL_NUMBERS = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK")

# Seconds without a sign of life after which a process counts as dead and the others end.
HEARTBEAT_TIMEOUT = 30

_PEER_ENDED = (
    "another process has ended, so this one ends too; see what that one says, then run the same "
    "command again to go on from the last checkpoint"
)


@dataclasses.dataclass(frozen=True)
class Launch:
    """How the processes of a job find each other.

    Attributes:
      launcher: what started them.
      process_id: this process's number; None where JAX asks the machine.
      num_processes: how many there are; likewise.
      address: host:port of process 0; None where JAX finds out.
    """

    launcher: str
    process_id: int | None = None
    num_processes: int | None = None
    address: str | None = None

    def __str__(self) -> str:
        process = "" if self.process_id is None else f", process {self.process_id}"
        total = "" if self.num_processes is None else f" of {self.num_processes}"
        where = "" if self.address is None else f", process 0 at {self.address}"
        return f"{self.launcher}{process}{total}{where}"


def share(environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Returns this process's number and how many there are, for work that needs no communication.

    From the launcher's environment; without one 0 and 1.

    Raises:
      InputError: the launcher counts no processes, or fewer than this one's number.
    """
    found = _launched(environ)
    return (0, 1) if found is None else found[1:]


def _launched(environ: Mapping[str, str]) -> tuple[str, int, int] | None:
    found = []
    for launcher, number, count in _LAUNCHERS:
        given = [environ.get(number, ""), environ.get(count, "")]
        if all(value.isdecimal() for value in given):
            found.append((launcher, int(given[0]), int(given[1])))
        elif all(given) and number.startswith("JAX_"):  # set by hand
            raise InputError(f"{number} = {given[0]!r} and {count} = {given[1]!r} must be numbers")
    # One may have started the other, as mpirun starts its ranks through a single task of Slurm.
    launch = max(found, key=lambda launch: launch[2], default=None)
    if launch is not None and launch[1] >= launch[2]:
        launcher, number, count = launch
        names = next(names for known, *names in _LAUNCHERS if known == launcher)
        raise InputError(
            f"{names[0]} = {number} must be below {names[1]} = {count}; the processes of a job are "
            "numbered from 0"
        )
    return launch


def detect(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Returns how this process is to join others, or None where it is alone.

    Raises:
      InputError: there are others, but nothing says where.
    """
    address = environ.get("JAX_COORDINATOR_ADDRESS")
    found = _launched(environ)
    if found is not None:
        launcher, process_id, num_processes = found
        if num_processes == 1:
            return None
        # Open MPI 5 no longer tells what JAX reads of version 4.
        blind = launcher == "Open MPI" and "OMPI_MCA_orte_hnp_uri" not in environ
        if address is None and (blind or launcher not in _KNOWN_TO_JAX):
            raise InputError(
                f"{launcher} started {num_processes} processes, but nothing says where process 0 "
                "is; set JAX_COORDINATOR_ADDRESS=HOST:PORT for all of them, or --distributed=off"
            )
        return Launch(launcher, process_id, num_processes, address)
    if "," in environ.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_NUM_SLICES" in environ:
        return Launch("a TPU pod")
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES"):
        if environ.get(name, "1") != "1":
            raise InputError(
                f"{name} = {environ[name]!r}, but JAX_PROCESS_ID and JAX_NUM_PROCESSES are not "
                "both set; set them, or --distributed=off"
            )
    return None


def remark(environ: Mapping[str, str] = os.environ) -> str | None:
    """What looks like a mistake in how the process was started, or None."""
    tasks = environ.get("SLURM_NTASKS", "1")
    if tasks.isdecimal() and int(tasks) > 1 and _launched(environ) is None:
        return f"Slurm gave {tasks} tasks, but this process is alone; start it with srun"
    return None


def choose(
    mode: str, address: str | None, num_processes: int | None, process_id: int | None
) -> Launch | None:
    """Returns how to join others: as given, or as the environment tells.

    Args:
      mode: "auto", "on" or "off".
      address: HOST:PORT of process 0, with the two numbers, or None.
      num_processes: how many there are.
      process_id: this process's number.

    Raises:
      InputError: they do not fit together.
    """
    given = {
        "--coordinator_address": address,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) < len(given):
        if mode == "off":
            raise InputError("--distributed=off is for a process alone; leave out the address")
        if missing:
            raise InputError(f"{missing[0]} is missing; give all of {', '.join(given)}, or none")
        assert num_processes is not None
        assert process_id is not None
        if process_id >= num_processes:
            raise InputError(
                f"--process_id = {process_id} must be below --num_processes = {num_processes}"
            )
        return Launch("the flags", process_id, num_processes, address)
    if mode == "off":
        return None
    if mode == "on":
        return detect() or Launch("what JAX finds")
    return detect()


@contextlib.contextmanager
def joined(
    launch: Launch | None, preempted_status: int = 0, initialization_timeout: int = 300
) -> Iterator[None]:
    """Connects the processes of a job for the body, and ends them together.

    Errors that a user can cause end the process as `reported` says. One that all processes share
    is told by process 0 alone, and they part in order; one of a single process ends it at once,
    and the others within a minute.

    Args:
      launch: see `detect`; None for a process that is alone.
      preempted_status: exit status of a run that was asked to end and can go on.
      initialization_timeout: seconds to wait for all processes to be there.
    """
    if launch is None:
        with reported(preempted_status):
            yield
        return
    import jax

    prepare_streams()
    status = 0
    try:
        _connect(launch, initialization_timeout)
        with naming_extra():
            yield
    except TOLD as error:
        status = exit_status(error, preempted_status)
        common = getattr(error, "common", False)
        if not common:
            tell(error, _teller(launch))
            _end_at_once(status)
        if jax.process_index() == 0:
            tell(error)
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and _lost_peer(error):
            print(f"error: {_teller(launch)}{_PEER_ENDED}", file=sys.stderr)
        else:
            traceback.print_exc()
        _end_at_once(1)
    jax.distributed.shutdown()
    if status:
        raise SystemExit(status)


def _connect(launch: Launch, timeout: int) -> None:
    import jax

    arguments: dict[str, Any] = {}
    if launch.address is not None:
        arguments = {
            "coordinator_address": launch.address,
            "num_processes": launch.num_processes,
            "process_id": launch.process_id,
        }
        local = [os.environ[name] for name in _LOCAL_NUMBERS if name in os.environ]
        if local and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
            arguments["local_device_ids"] = int(local[0])
    # JAX would abort with the stack of its C++ code.
    faulthandler.disable()
    late = threading.Timer(timeout, _give_up, [launch, timeout])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=2 * timeout,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the processes do not find each other ({launch}): {error}") from error
    finally:
        late.cancel()


def _give_up(launch: Launch, timeout: int) -> None:
    print(
        f"error: {_teller(launch)}after {timeout} s some of the others are still missing "
        f"({launch}); see what they say, or set --initialization_timeout",
        file=sys.stderr,
    )
    _end_at_once(1)


def _teller(launch: Launch) -> str:
    return "" if launch.process_id is None else f"process {launch.process_id}: "


def _lost_peer(error: BaseException) -> bool:
    """Whether an error of the runtime tells of a connection rather than of this process."""
    signs = ("gloo", "connection", "nccl", "socket", "unavailable", "coordination", "peer")
    return any(sign in str(error).lower() for sign in signs)


def _end_at_once(status: int) -> NoReturn:
    """Ends the process without waiting for the others, as Python's own end would."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
