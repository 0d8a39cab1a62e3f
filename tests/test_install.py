"""What works without the extra `train`, and what the rest says: its packages are hidden here."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import tiny_config

from jaxdeblur import errors, training

ROOT = Path(__file__).parents[1]

# The modules of the packages that `train` alone brings. absl, optax and tensorstore come with flax.
MODULES = {
    "absl-py": None,
    "array-record": "array_record",
    "grain": "grain",
    "h5py": "h5py",
    "matplotlib": "matplotlib",
    "ml-collections": "ml_collections",
    "optax": None,
    "scikit-image": "skimage",
    "tensorboardX": "tensorboardX",
    "tensorflow-datasets": "tensorflow_datasets",
    "tensorstore": None,
}

# Runs command lines one after the other; prints the status and the output of each as JSON.
PROGRAM = """
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
from jaxdeblur import cli
for arguments in json.loads(sys.argv[2]):
    status, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(arguments)
        except SystemExit as end:
            status = end.code or 0
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def without_train(*commands):
    """Status, output and errors of each command, with the packages of `train` hidden."""
    hidden = [name for name in MODULES.values() if name]
    arguments = [json.dumps(hidden), json.dumps([list(map(str, c)) for c in commands])]
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in process.stdout.splitlines()]


def packages(requirements):
    return {re.match(r"[\w-]+", text)[0] for text in requirements}


def test_the_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert packages(project["optional-dependencies"]["train"]) == set(MODULES)
    modules = {"pillow": "PIL", "orbax-checkpoint": "orbax"}
    base = {modules.get(x, x.replace("-", "_")) for x in packages(project["dependencies"])}
    assert base == set(errors._BASE)


def test_every_command_has_its_help():
    commands = ("", "deblur", "models", "fetch", "prepare", "convert", "doctor", "train", "eval")
    for status, out, err in without_train(*([*name.split(), "--help"] for name in commands)):
        assert (status, err) == (0, "")
        assert len(out.splitlines()) > 4


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    training.train_and_evaluate(tiny_config(num_steps=2, eval_every_steps=2), folder)
    return folder


def test_photographs_are_restored_and_runs_converted(workdir, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    results = without_train(
        ["deblur", tmp_path / "photo.png", "--model", workdir],
        ["convert", "run", workdir, tmp_path / "net.safetensors"],
        ["deblur", tmp_path / "photo.png", "--model", tmp_path / "net.safetensors", "--overwrite"],
    )
    for status, _, err in results:
        assert status == 0, err
    assert Image.open(tmp_path / "photo.deblurred.png").size == (50, 40)


def test_the_rest_says_in_a_line_what_to_install(tmp_path):
    (tmp_path / "model.json").write_text('{"config": {"layers": []}}')
    results = without_train(
        ["train", "quickstart", "--workdir", tmp_path / "run"],
        ["eval", "quickstart"],
        ["prepare", "check", tmp_path],
        ["prepare", "cifar10", "--data-dir", tmp_path],
        ["convert", "keras", tmp_path / "model.json", tmp_path / "w.h5", tmp_path / "out"],
    )
    for status, out, err in results:
        assert (status, out) == (2, "")
        assert re.fullmatch(
            r"error: the package \w+ is missing; pip install 'jaxdeblur\[train\]'\n", err
        )
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_from_python_the_error_says_what_to_install():
    for module in ("training", "evaluation", "configs.quickstart", "data.pipeline"):
        code = (
            "import sys; sys.modules.update(ml_collections=None, grain=None)\n"
            f"import jaxdeblur.{module}"
        )
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert process.returncode == 1
        assert process.stderr.endswith("is missing; pip install 'jaxdeblur[train]'\n")
