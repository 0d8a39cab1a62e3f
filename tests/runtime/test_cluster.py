"""Who started the processes, as told by the environments that launchers leave."""

import os

import pytest
from jax._src.clusters.ompi_cluster import OmpiCluster
from jax._src.clusters.slurm_cluster import SlurmCluster

from jaxdeblur.errors import InputError, Preempted, TrainingError
from jaxdeblur.runtime import cluster
from jaxdeblur.runtime.cluster import Launch

ADDRESS = {"JAX_COORDINATOR_ADDRESS": "node1:1234"}
SBATCH = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_NPROCS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
SRUN = SBATCH | {
    "SLURM_PROCID": "2",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "PMI_RANK": "2",
    "PMI_SIZE": "4",
}
ONE_TASK = SRUN | {  # srun --pty bash
    "SLURM_PROCID": "0",
    "SLURM_STEP_NUM_TASKS": "1",
    "PMI_RANK": "0",
    "PMI_SIZE": "1",
}
OPEN_MPI_5 = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "PMIX_RANK": "1",
}
OPEN_MPI_4 = OPEN_MPI_5 | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "6", "PMI_FD": "9"}
JAX = {"JAX_PROCESS_ID": "3", "JAX_NUM_PROCESSES": "8"}
KUBERNETES = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "JOB_COMPLETION_INDEX": "1",
    "JAX_NUM_PROCESSES": "2",
}


@pytest.fixture
def environment(monkeypatch):
    """Sets the environment of this process to that of a launcher, and nothing else of any."""
    launchers = (
        "SLURM",
        "OMPI",
        "PMI",
        "JAX_PROCESS",
        "JAX_NUM",
        "JAX_COORD",
        "JOB_",
        "TPU",
        "MEG",
    )
    for name in [name for name in os.environ if name.startswith(launchers)]:
        monkeypatch.delenv(name)

    def set_to(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"HOME": "/root", "SLURM_JOB_ID": ""}, None),
        (SRUN, Launch("Slurm", 2, 4)),
        (SRUN | ADDRESS, Launch("Slurm", 2, 4, "node1:1234")),
        (SBATCH, None),
        (OPEN_MPI_4, Launch("Open MPI", 1, 3)),
        (OPEN_MPI_4 | ADDRESS, Launch("Open MPI", 1, 3, "node1:1234")),
        (OPEN_MPI_5 | ADDRESS, Launch("Open MPI", 1, 3, "node1:1234")),
        (SBATCH | OPEN_MPI_4, Launch("Open MPI", 1, 3)),  # mpirun in a batch script
        (MPICH | ADDRESS, Launch("MPI", 5, 6, "node1:1234")),
        (JAX | ADDRESS, Launch("the environment", 3, 8, "node1:1234")),
        (KUBERNETES | ADDRESS, Launch("Kubernetes", 1, 2, "node1:1234")),
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, Launch("a TPU pod")),
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"}, Launch("a TPU pod")),
    ],
)  # fmt: skip
def test_the_launcher_tells_who_a_process_is(environ, expected):
    assert cluster.detect(environ) == expected


@pytest.mark.parametrize(
    ("environ", "launcher", "number"),
    [
        (OPEN_MPI_5, "Open MPI", 3),
        (MPICH, "MPI", 6),
        (JAX, "the environment", 8),
        (KUBERNETES, "Kubernetes", 2),
    ],
)
def test_processes_that_are_not_told_where_the_first_is_are_refused(environ, launcher, number):
    message = f"^{launcher} started {number} processes.*JAX_COORDINATOR_ADDRESS=HOST:PORT.*=off"
    with pytest.raises(InputError, match=message):
        cluster.detect(environ)


@pytest.mark.parametrize(
    "numbers",
    [{}, {"JAX_PROCESS_ID": "0"}, {"JAX_NUM_PROCESSES": "2"}],
)
def test_an_address_without_both_numbers_is_refused(numbers):
    with pytest.raises(InputError, match=r"'node1:1234', but JAX_PROCESS_ID and JAX_NUM_PROCESSES"):
        cluster.detect(ADDRESS | numbers)


@pytest.mark.parametrize(
    "environ",
    [
        ONE_TASK | {"SLURM_NTASKS": "1"},
        ONE_TASK,  # of a larger job
        OPEN_MPI_5 | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
        MPICH | {"PMI_RANK": "0", "PMI_SIZE": "1"},
        JAX | {"JAX_PROCESS_ID": "0", "JAX_NUM_PROCESSES": "1"},
        KUBERNETES | {"JOB_COMPLETION_INDEX": "0", "JAX_NUM_PROCESSES": "1"},
    ],
)
@pytest.mark.parametrize("address", [{}, ADDRESS])
def test_a_single_task_is_alone(environ, address):
    assert cluster.detect(environ | address) is None
    assert cluster.share(environ | address) == (0, 1)
    assert cluster.remark(environ | address) is None


def test_numbers_set_by_hand_come_before_a_launcher_of_one_task():
    assert cluster.detect(ONE_TASK | JAX | ADDRESS) == Launch("the environment", 3, 8, "node1:1234")


def test_ranks_that_mpirun_starts_through_a_task_of_slurm_are_those_of_mpirun():
    ranks = ONE_TASK | MPICH | ADDRESS
    assert cluster.detect(ranks) == cluster.detect(MPICH | ADDRESS)
    assert cluster.share(ranks) == cluster.share(MPICH)


def test_several_tasks_without_srun_are_remarked_on():
    # What srun would start four times, sbatch starts once.
    remark = "Slurm gave 4 tasks, but this process is alone; start it with srun"
    assert cluster.remark(SBATCH) == remark
    assert cluster.remark(SBATCH | {"SLURM_NTASKS": "1"}) is None
    assert cluster.remark({}) is None


@pytest.mark.parametrize("environ", [SRUN, OPEN_MPI_4, OPEN_MPI_5, MPICH, JAX, KUBERNETES])
def test_processes_that_know_each_other_are_not_remarked_on(environ):
    assert cluster.remark(environ) is None
    assert cluster.remark(SBATCH | environ) is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0, 1)),
        (SRUN, (2, 4)),
        (SBATCH, (0, 1)),
        (OPEN_MPI_5, (1, 3)),
        (MPICH, (5, 6)),
        (JAX, (3, 8)),
        (KUBERNETES, (1, 2)),
        ({"JAX_PROCESS_ID": "3"}, (0, 1)),
    ],
)
def test_work_is_shared_without_an_address(environ, expected):
    assert cluster.share(environ) == expected


@pytest.mark.parametrize(
    ("number", "count", "message"),
    [
        ("8", "8", "JAX_PROCESS_ID = 8 must be below JAX_NUM_PROCESSES = 8"),
        ("0", "0", "JAX_PROCESS_ID = 0 must be below JAX_NUM_PROCESSES = 0"),
        ("-1", "8", "JAX_PROCESS_ID = '-1' and JAX_NUM_PROCESSES = '8' must be numbers"),
    ],
)
def test_a_process_that_its_job_does_not_have_is_refused(number, count, message):
    environ = JAX | {"JAX_PROCESS_ID": number, "JAX_NUM_PROCESSES": count}
    for ask in (cluster.share, cluster.detect):
        with pytest.raises(InputError, match=message):
            ask(environ)


@pytest.mark.parametrize(
    ("environ", "found_by_jax"), [(SRUN, SlurmCluster), (OPEN_MPI_4, OmpiCluster)]
)
def test_where_no_address_is_needed_jax_finds_the_same_processes(
    environment, environ, found_by_jax
):
    environment(environ)
    launch = cluster.detect()
    assert launch.address is None
    assert found_by_jax.is_env_present()
    assert found_by_jax.get_process_id() == launch.process_id
    assert found_by_jax.get_process_count() == launch.num_processes
    assert found_by_jax.get_coordinator_address(None, None).startswith(("node1:", "10.96.0.1:"))


@pytest.mark.parametrize(("environ", "like"), [(SBATCH, SlurmCluster), (OPEN_MPI_5, OmpiCluster)])
def test_where_jax_finds_nothing_neither_do_we(environment, environ, like):
    environment(environ)
    assert not like.is_env_present()
    if environ is SBATCH:
        assert cluster.detect() is None
    else:
        with pytest.raises(InputError, match="JAX_COORDINATOR_ADDRESS"):
            cluster.detect()


@pytest.mark.parametrize(
    ("launch", "text"),
    [
        (Launch("Slurm", 2, 4), "Slurm, process 2 of 4"),
        (Launch("MPI", 0, 2, "a:1"), "MPI, process 0 of 2, process 0 at a:1"),
        (Launch("a TPU pod"), "a TPU pod"),
    ],
)
def test_a_launch_in_words(launch, text):
    assert str(launch) == text


# The command line.


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_the_flags_come_before_the_environment(environment, mode):
    environment(SRUN)
    assert cluster.choose(mode, "here:99", 3, 0) == Launch("the flags", 0, 3, "here:99")
    assert cluster.choose(mode, "here:99", 1, 0) == Launch("the flags", 0, 1, "here:99")


def test_an_address_for_a_process_alone_is_refused():
    with pytest.raises(InputError, match="--distributed=off is for a process alone"):
        cluster.choose("off", "here:99", 2, 1)


@pytest.mark.parametrize("name", ["JAX_NUM_PROCESSES", "JAX_COORDINATOR_ADDRESS"])
def test_half_of_what_says_where_the_others_are_is_refused(name):
    with pytest.raises(InputError, match=f"{name} = '2', but JAX_PROCESS_ID"):
        cluster.detect({name: "2"})


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ((None, 2, 1), "--coordinator_address"),
        (("here:99", None, 1), "--num_processes"),
        (("here:99", 2, None), "--process_id"),
        (("here:99", None, None), "--num_processes"),
        ((None, 2, None), "--coordinator_address"),
        ((None, None, 0), "--coordinator_address"),
    ],
)
def test_flags_that_are_missing_are_named(environment, mode, flags, missing):
    environment(SRUN)
    with pytest.raises(InputError, match=f"^{missing} is missing; give all of --coordinator_addr"):
        cluster.choose(mode, *flags)


@pytest.mark.parametrize("process_id", [2, 3])
def test_a_process_beyond_the_last_is_named(process_id):
    message = f"--process_id = {process_id} must be below --num_processes = 2"
    with pytest.raises(InputError, match=message):
        cluster.choose("auto", "here:99", 2, process_id)


@pytest.mark.parametrize(
    ("mode", "environ", "expected"),
    [
        ("auto", {}, None),
        ("auto", SRUN, Launch("Slurm", 2, 4)),
        ("off", {}, None),
        ("off", SRUN, None),
        ("off", OPEN_MPI_5, None),  # which by itself would be refused
        ("off", ADDRESS, None),
        ("on", {}, Launch("what JAX finds")),
        ("on", SBATCH, Launch("what JAX finds")),
        ("on", SRUN, Launch("Slurm", 2, 4)),
    ],
)
def test_without_numbers_the_environment_decides(environment, mode, environ, expected):
    environment(environ)
    assert cluster.choose(mode, None, None, None) == expected


# The end of a process that is alone.


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (Preempted("step 3 is saved"), 75, "step 3 is saved"),
        (InputError("no\nsuch key"), 2, "error: no such key"),
        (TrainingError("loss nan"), 1, "error: loss nan"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_the_exit_status_says_how_a_process_ended(capsys, error, status, line):
    with pytest.raises(SystemExit) as end, cluster.joined(None, preempted_status=75):
        raise error
    assert end.value.code == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_process_that_was_asked_to_end_is_no_failure(capsys):
    with pytest.raises(SystemExit) as end, cluster.joined(None):
        raise Preempted("step 3 is saved")
    assert end.value.code == 0
    assert capsys.readouterr().err == "step 3 is saved\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), cluster.joined(None):
        raise ZeroDivisionError
