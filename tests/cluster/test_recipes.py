"""The recipes in cluster/ against what train.py takes; two of them are also run, beside this."""

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import pytest
import yaml
from flax.traverse_util import flatten_dict

from jaxdeblur.configs import default
from jaxdeblur.runtime import cluster

ROOT = Path(__file__).parents[2]
SOURCES = ("jaxdeblur/cli/train.py", "jaxdeblur/cli/flags.py")  # where the flags are
SBATCH = ROOT / "cluster" / "slurm" / "train.sbatch"
JOBSET = ROOT / "cluster" / "kubernetes" / "jobset.yaml"
RECIPES = [SBATCH, JOBSET, ROOT / "cluster" / "mpi.md", ROOT / "cluster" / "tpu.md"]


@pytest.fixture(scope="module")
def jobset():
    return yaml.safe_load(JOBSET.read_text())


@pytest.fixture(scope="module")
def job(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]


@pytest.fixture(scope="module")
def container(job):
    (container,) = job["template"]["spec"]["containers"]
    return container


def text_of(recipe):
    return recipe.read_text().replace("\\\n", " ")  # one command a line


def flags_of(recipe):
    text = text_of(recipe)
    if recipe == JOBSET:
        return set(re.findall(r"- --([\w.]+)", text))
    commands = " ".join(re.findall(r"train\.py (.*)", text))
    # Other programs' flags have hyphens.
    ours = re.findall(r"--([a-z]+[_.][a-z_.]+)", text)
    return {*re.findall(r"--([a-z_.]+)", commands), *ours}


def preempted_status(recipe):
    (status,) = set(re.findall(r"--preempted_status=(\d+)", text_of(recipe)))
    return int(status)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_flags_configurations_and_extras_exist(recipe):
    sources = "".join((ROOT / x).read_text() for x in SOURCES)
    known = {"config", *re.findall(r'DEFINE_\w+\(\s*"(\w+)"', sources)}
    keys = flatten_dict(default.get_config().to_dict(), sep=".")
    found = flags_of(recipe)
    assert {"config", "workdir"} <= found
    assert found <= known | {f"config.{key}" for key in keys}
    for config in re.findall(r"configs/\w+\.py", text_of(recipe)):
        assert (ROOT / config).is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for names in re.findall(r"'\.\[([\w,]+)\]'", text_of(recipe)):
        assert set(names.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_variables_are_those_that_this_package_or_jax_reads(recipe):
    read = inspect.getsource(cluster)
    read += inspect.getsource(sys.modules[jax.distributed.initialize.__module__])
    for name in set(re.findall(r"\bJAX_[A-Z_]+", text_of(recipe))):
        assert re.search(rf"""['"]{name}['"]""", read), name


def test_the_slurm_script_is_one_and_requeues_what_was_asked_to_end():
    subprocess.run(["bash", "-n", SBATCH], check=True)
    assert f'[ "$status" -eq {preempted_status(SBATCH)} ]' in SBATCH.read_text()


def test_pods_find_each_other(jobset, job, container):
    environ = {x["name"]: x["value"] for x in container["env"]}
    launch = cluster.detect({**environ, "JOB_COMPLETION_INDEX": "1"})
    assert launch is not None
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == launch.num_processes
    assert launch.process_id == 1
    name = jobset["metadata"]["name"]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert launch.address is not None
    assert launch.address.startswith(f"{name}-{replicated['name']}-0-0.{name}:")


def test_pods_that_were_asked_to_end_start_again_together(jobset, job, container):
    by_exit_code, by_condition = job["podFailurePolicy"]["rules"]
    assert by_exit_code["onExitCodes"]["containerName"] == container["name"]
    assert preempted_status(JOBSET) in by_exit_code["onExitCodes"]["values"]
    assert by_condition["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert by_exit_code["action"] == by_condition["action"] == "FailJob"
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # as a podFailurePolicy demands
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_the_volumes_of_the_pods_are_there(job, container):
    volumes = {volume["name"] for volume in job["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
