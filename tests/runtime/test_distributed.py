"""Real processes, which find each other over this machine's network."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdeblur.evaluation import tables

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def start(out, *arguments, flags=()):
    """A job whose programs are optimised little: most of its time is their compilation."""
    command = [sys.executable, "tests/distributed_job.py", str(out), *arguments]
    flags = " ".join(["--xla_backend_optimization_level=0", *flags])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, text = process.communicate(timeout=900)  # alone it takes about 100
    assert process.returncode == 0, text
    return text


def save_clips(folder):
    """Two clips of three small frames, of one size each, all frames different."""
    rng = np.random.default_rng(0)
    for clip, size in (("a", (24, 32)), ("b", (32, 64))):  # two devices share those of "b"
        for kind in ("blur", "sharp"):
            for i in range(3):
                path = folder / "val" / kind / clip / f"{i:08d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one device, one process with two devices, and two processes with one each get."""
    folder = tmp_path_factory.mktemp("jobs")
    save_clips(folder / "clips")
    for name in ("one", "devices", "processes"):
        (folder / name).mkdir()
    finish(start(folder / "one"))
    for name in ("devices", "processes"):  # they go on where the one device saved step 3
        shutil.copytree(folder / "one" / "run_whole", folder / name / "resumed")
        shutil.rmtree(folder / name / "resumed" / "checkpoints" / "6")
    flags = ["--xla_force_host_platform_device_count=2"]
    finish(start(folder / "devices", flags=flags))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    both = [start(folder / "processes", address, str(i), "2") for i in range(2)]
    texts = [finish(process) for process in both]
    return (
        folder,
        {
            name: dict(np.load(folder / name / "result.npz"))
            for name in ("one", "devices", "processes")
        },
        texts,
    )


@pytest.mark.parametrize("state", ["whole", "divided"])
def test_two_processes_end_with_the_parameters_of_two_devices_and_of_one(results, state):
    _, found, _ = results
    names = [name for name in found["one"] if name.startswith(state) and name[-1].isdigit()]
    assert len(names) > 10
    moved = 0
    for name in names:
        np.testing.assert_allclose(found["processes"][name], found["devices"][name], atol=1e-6)
        np.testing.assert_allclose(found["one"][name], found["devices"][name], atol=1e-5)
        moved += (found["one"][name] != 0).any()
    assert moved > 5


def test_a_divided_state_lies_in_parts_on_the_devices(results):
    _, found, _ = results
    assert [float(found[name]["share"]) for name in ("one", "devices", "processes")] == [
        1,
        0.5,
        0.5,
    ]


def log(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("run", ["run_whole", "resumed"])
def test_the_log_has_the_same_samples_and_nearly_the_same_numbers(results, run):
    folder, _, texts = results
    assert "going on after step 3" in texts[0]
    expected = log(folder / "one" / "run_whole")
    assert len({line["samples"] for line in expected if "loss" in line}) == 6
    for name in ("devices", "processes"):
        found = log(folder / name / run)
        assert [x.get("samples") for x in found] == [x.get("samples") for x in expected]
        for line, reference in zip(found, expected, strict=True):
            for key in reference.keys() - {"samples", "images_per_second", "loader_wait"}:
                np.testing.assert_allclose(line[key], reference[key], rtol=1e-4)


@pytest.mark.parametrize("name", ["frames", "crops"])
def test_evaluations_are_the_same_frames_in_order_and_numbers(results, name):
    _, found, _ = results
    keys = [key for key in found["one"] if key.startswith(name)]
    assert f"{name}_ssim" in keys
    np.testing.assert_array_equal(found["one"][f"{name}_index"], np.arange(6))
    for other in ("devices", "processes"):
        for key in keys:
            np.testing.assert_allclose(found[other][key], found["one"][key], rtol=1e-5)


def test_eval_reads_a_run_on_every_process_and_writes_on_one(results):
    folder, found, _ = results
    for name in ("devices", "processes"):
        np.testing.assert_allclose(found[name]["psnr"], found["one"]["psnr"], rtol=1e-5)
        written = json.loads((folder / name / "results" / "results.json").read_text())
        np.testing.assert_allclose(written["psnr"], found["one"]["psnr"], rtol=1e-5)
        whole, *parts = tables.read(folder / name / "results.csv")
        np.testing.assert_allclose(whole.psnr, found["one"]["psnr"], rtol=1e-5)
        assert [part.evaluation for part in parts] == [whole.evaluation] * 3


def test_only_process_0_talks_and_writes(results):
    folder, _, texts = results
    assert "training 6/6" in texts[0]
    assert "training" not in texts[1]
    assert "step 6" not in texts[1]
    written = {path.name for path in (folder / "processes" / "run_whole").iterdir()}
    assert written == {path.name for path in (folder / "one" / "run_whole").iterdir()}
    assert len(list((folder / "processes" / "run_whole" / "tensorboard").iterdir())) == 1


def test_what_processes_tell_each_other_arrives_bit_for_bit(results):
    found = results[1]["processes"]
    np.testing.assert_array_equal(found["rows"], [[0, 0], [1, 1], [1, 1]])
    exact = np.array([-0.0, np.nan, np.inf, 1e-42, 3.25], np.float32).view(np.uint32)
    np.testing.assert_array_equal(found["broadcast"], exact)


def test_an_error_of_one_process_is_that_of_all(results):
    assert str(results[1]["processes"]["error"]) == "process 1: nothing there"
    assert str(results[1]["one"]["error"]) == "nothing there"
