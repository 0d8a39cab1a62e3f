"""How arrays lie on the devices: one mesh over all of them, parameters whole, batches divided."""

from __future__ import annotations

import os

import jax

# Where a launcher tells a process its number and how many there are: Slurm's srun (not sbatch,
# whose script runs once), Open MPI, MPICH and Intel MPI, and what JAX itself reads.
_SHARES = (
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
    ("JOB_COMPLETION_INDEX", "JAX_NUM_PROCESSES"),  # an indexed job of Kubernetes
)


def share() -> tuple[int, int]:
    """Returns this process's number and how many there are, for work that needs no communication.

    From the launcher's environment; without one 0 and 1.
    """
    for number, count in _SHARES:
        if os.environ.get(number, "").isdecimal() and os.environ.get(count, "").isdecimal():
            return int(os.environ[number]), int(os.environ[count])
    return 0, 1


def shardings() -> tuple[jax.NamedSharding, jax.NamedSharding]:
    """Returns the shardings "whole on every device" and "divided along the first axis"."""
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    return jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("data"))
