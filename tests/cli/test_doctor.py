"""`jaxdeblur doctor`: what it says of sound and of broken installations, devices and folders."""

import importlib.metadata
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

import jaxdeblur
from jaxdeblur import cli
from jaxdeblur.cli.doctor import common, data, devices, machine, versions
from jaxdeblur.data.clips import folders as clip_folders
from jaxdeblur.data.clips import storing
from jaxdeblur.runtime import startup

REPOSITORY = Path(__file__).parents[2]
SOUND = "nothing that training needs is broken"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher, whatever starts the tests."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI_", "JAX_COORD", "JAX_NUM", "JAX_PROCESS")):
            monkeypatch.delenv(name)


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command, without devices unless told; returns its status, sections and last line."""

    def run(*arguments, with_devices=False):
        if not with_devices:
            monkeypatch.setattr(devices, "lines", lambda: iter([common.Line("none", "here")]))
        status = 0
        try:
            cli.main(["doctor", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        assert err == ""
        return status, *parsed(out)

    return run


def parsed(out):
    """Returns each section's lines as pairs of name and value, and the line after all of them."""
    *paragraphs, last = out.strip().split("\n\n")
    sections = {}
    for paragraph in paragraphs:
        title, *lines = paragraph.splitlines()
        sections[title] = [re.fullmatch(r"  (.+?): +(.*)", line).groups() for line in lines]
    assert "\n" not in last
    return sections, last


def in_process(*arguments, missing=(), **environment):
    """Runs the command in a process of its own, without some modules; returns what `run` does."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
        "from jaxdeblur import cli; cli.main()"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    process = subprocess.run(
        [sys.executable, "-c", program, "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, **environment},
    )
    assert process.stderr == ""
    return process.returncode, *parsed(process.stdout)


def save(file, size=(40, 30), seed=0):
    """Makes a picture of noise of a width and a height."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(file)


def cut(file):
    """Leaves half of a file, of which a picture's header is whole."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


# Versions.


@pytest.mark.parametrize(
    ("installed", "minima", "line"),
    [
        ("0.2.10", {"train": "0.2.8"}, ("0.2.10", False)),
        ("0.9", {"": "0.10"}, ("0.9, but jaxdeblur needs 0.10 or newer", True)),
        ("11.1", {"s3": "11.3", "train": "11"}, ("jaxdeblur[s3] needs 11.3", False)),
        (None, {"s3": "11.3", "train": "11"}, ("pip install 'jaxdeblur[train]'", True)),
        (None, {"gcs": "3"}, ("not installed (pip install 'jaxdeblur[gcs]')", False)),
    ],
)
def test_old_and_missing_packages_are_told(monkeypatch, installed, minima, line):
    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    told = versions._package("some-package", minima)
    assert line[0] in told.value
    assert told.broken == line[1]


def test_versions_are_those_of_the_installed_packages(run):
    _, sections, _ = run()
    told = dict(sections["versions"])
    assert told["jaxdeblur"] == f"{jaxdeblur.__version__} ({REPOSITORY / 'jaxdeblur'})"
    needed = [Requirement(text) for text in importlib.metadata.requires("jaxdeblur")]
    extra = {"extra": "train"}
    names = {need.name for need in needed if not need.marker or need.marker.evaluate(extra)}
    assert {"flax", "grain", "rich"} <= names
    for name in (*names, "jaxlib"):
        assert told[name] == importlib.metadata.version(name)
    assert not {"pytest", "ruff", "jaxdeblur[train]"} & told.keys()


def test_without_the_train_extra_the_rest_follows(tmp_path):
    arguments = ("--data-dir", tmp_path, "--dataset", "photos", "--workdir", tmp_path)
    missing = ("grain", "h5py", "matplotlib", "ml_collections", "skimage", "tensorboardX")
    status, sections, last = in_process(*arguments, missing=missing)
    told = dict(sections["data"])["failed"]
    assert told == "the package ml_collections is missing; pip install 'jaxdeblur[train]'"
    assert "GFLOP/s" in dict(sections["devices"])["matrix product"]
    assert dict(sections["workdir"])["writing"] == f"works in {tmp_path}"
    assert dict(sections["workdir"])["log"] == "none"
    assert status == 1
    assert last == "broken, and needed to train: failed (data)"


# Machine, cluster, devices.


def test_a_whole_run(tmp_path):
    """Of a process of a Slurm job whose others never come: it must not wait for them."""
    slurm = {"SLURM_JOB_ID": "77", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3"}
    environment = {
        **slurm,
        "OMPI_COMM_WORLD_NAME": "\xfc\nber",
        "HTTPS_PROXY": "http://me:secret@proxy:1",
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONIOENCODING": "ascii",
    }
    status, sections, last = in_process(**environment)
    assert (status, last) == (0, SOUND)
    assert list(sections) == ["versions", "machine", "cluster", "devices"]

    told = dict(sections["machine"])
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    assert float(told["memory"].split(" GB")[0]) == pytest.approx(gigabytes, rel=0.01)
    assert told["current folder"].startswith(f"{os.getcwd()}, ")

    told = dict(sections["cluster"])
    assert told["job"] == "Slurm, process 3 of 8"
    assert "HTTPS_PROXY" in told["proxies"]
    assert told["OMPI_COMM_WORLD_NAME"] == "\\xfc ber"
    assert slurm.items() <= told.items()
    assert "secret" not in str(sections)

    told = dict(sections["devices"])
    assert told["backend"] == jax.default_backend()
    assert told["devices"] == f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    assert re.fullmatch(
        r"(\d+)x\1, float32: \S+ s with compiling, then \S+ s, \d+ GFLOP/s",
        told["matrix product"],
    )

    folder, remark = told["cache"].split(", ")
    assert remark == "does not exist"
    assert list(tmp_path.iterdir()) == []
    program = "from jaxdeblur.runtime import startup; print(startup.use_compilation_cache())"
    environment.update({k: v for k, v in os.environ.items() if not k.startswith("JAX_")})
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    used = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert folder == used.strip()


def test_the_compilation_cache_is_measured(monkeypatch, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(bytes(1_200_000))
    (tmp_path / "two").write_bytes(bytes(300_000))
    monkeypatch.setattr(startup, "compilation_cache_folder", lambda: str(tmp_path))
    assert devices._cache() == f"{tmp_path}, 1.5 MB in 2 files"


@pytest.mark.parametrize(
    ("environment", "lines", "broken"),
    [
        ({}, {"job": "alone"}, False),
        ({"SLURM_NTASKS": "4"}, {"job": "alone", "remark": "start it with srun"}, False),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, {"job": "set JAX_COORDINATOR_ADDRESS"}, True),
    ],
)
def test_what_the_launcher_says_is_told(run, monkeypatch, environment, lines, broken):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    status, sections, last = run()
    told = dict(sections["cluster"])
    for name, value in lines.items():
        assert value in told[name]
    assert ("remark" in told) == ("remark" in lines)
    assert status == broken
    assert last == ("broken, and needed to train: job (cluster)" if broken else SOUND)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JAX_PLATFORMS", "nonsense", r"nonsense"),
        ("XLA_FLAGS", "--nonsense=1", r"nonsense.*the process that tried them ended with"),
    ],
)
def test_devices_that_fail_do_not_stop_the_rest(run, monkeypatch, tmp_path, name, value, message):
    monkeypatch.setenv(name, value)
    status, sections, last = run("--workdir", tmp_path, with_devices=True)
    assert (status, last) == (1, "broken, and needed to train: failed (devices)")
    assert re.search(message, " ".join(value for _, value in sections["devices"]))
    assert dict(sections["workdir"])["checkpoints"] == "none"


def test_devices_that_hang_are_given_up(run, monkeypatch):
    monkeypatch.setattr(devices, "_LIMIT", 0.05)
    status, sections, last = run(with_devices=True)
    assert (status, last) == (1, "broken, and needed to train: failed (devices)")
    assert dict(sections["devices"])["failed"] == "no answer within 0 s"


def test_a_device_that_computes_wrong_is_told(monkeypatch):
    monkeypatch.setattr(jax.numpy, "matmul", lambda a, b: (a @ b).at[1, 7].add(1))
    line = devices._product(jax.devices()[0])
    assert "computes wrong numbers" in line.value
    assert line.broken


def test_a_section_that_fails_says_why_and_the_others_follow(run, monkeypatch):
    def fail():
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr("platform.platform", fail)
    status, sections, last = run()
    assert [name for name, _ in sections["versions"]] == ["jaxdeblur", "Python", "failed"]
    assert sections["versions"][-1][1] == "RuntimeError: no such thing"
    assert dict(sections["cluster"])["job"] == "alone"
    assert (status, last) == (0, SOUND)


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/a/b", {"a/memory.max": "7000", "a/b/memory.max": "max"}, 7000),
        ("0::/outside", {"memory.max": "300"}, 300),
        ("0::/", {"memory.max": "max"}, None),
        ("4:memory:/x\n3:cpu:/x\n0::/", {"memory/x/memory.limit_in_bytes": "90"}, 90),
    ],
)
def test_the_memory_of_the_control_group(tmp_path, own, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    groups = tmp_path / "own"
    groups.write_text(own + "\n")
    assert machine._memory_limit(groups, tmp_path) == limit


# Data.


def test_damaged_photographs_are_named(run, monkeypatch, tmp_path):
    # A root logger that prints, as the one that absl makes when it is imported.
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler()])
    for i in range(5):
        save(tmp_path / "train" / f"{i}.png")
        save(tmp_path / "val" / f"{i}.png")
    cut(tmp_path / "train" / "2.png")
    for i in range(5):
        (tmp_path / "val" / f"{i}.png").write_text("no picture")
    status, sections, last = run("--data-dir", tmp_path)
    names = [name for name, _ in sections["data"]]
    assert names[:9] == ["folder", "dataset", "train", "warning", "val", *["warning"] * 4]
    values = [value for _, value in sections["data"]]
    assert values[1].startswith("photos (guessed")
    assert values[2].startswith("5 images, the smallest 40x30, opened in ")
    assert "; 5 read by one thread" in values[2]
    assert re.search(r"train/2\.png: damaged", values[3])
    assert "none of its 5 files is a readable image" in values[4]
    assert re.search(r"val/0\.png: left out", values[5])
    assert values[8] == "and 2 more"
    assert (status, last) == (1, "broken, and needed to train: val (data)")


def clips(folder):
    for kind in ("blur", "sharp"):
        for clip in ("a", "b"):
            for i in range(3):
                save(folder / clip / kind / f"{i}.png", (64, 48), i)


def test_clips_and_a_store_of_them(run, tmp_path):
    clips(tmp_path / "clips")
    store = tmp_path / "store"
    storing.write(clip_folders.open_folder(tmp_path / "clips", "blur"), store, "blur")
    for folder in (tmp_path / "clips", store):
        status, sections, last = run("--data-dir", folder)
        assert (status, last) == (0, SOUND)
        told = dict(sections["data"])
        assert told["dataset"].startswith("clips (guessed")
        for split in ("train", "val"):  # one clip is held out
            assert told[split].startswith("3 frames, the smallest 64x48")
            assert "; 3 read by one thread" in told[split]
    status, sections, _ = run("--data-dir", store, "--variant", "blur_gamma")
    assert status == 1
    assert "'blur' frames, not 'blur_gamma'" in dict(sections["data"])["train"]


def test_damaged_clips_are_told(run, tmp_path):
    clips(tmp_path)
    cut(tmp_path / "a" / "blur" / "1.png")
    status, sections, last = run("--data-dir", tmp_path)
    assert "a/blur/1.png is damaged" in dict(sections["data"])["train"]
    assert dict(sections["data"])["val"].startswith("3 frames")
    assert (status, last) == (1, "broken, and needed to train: train (data)")


def test_a_folder_that_is_missing(run, tmp_path):
    status, sections, last = run("--data-dir", tmp_path / "none")
    assert sections["data"] == [("folder", f"{tmp_path}/none is no folder")]
    assert (status, last) == (1, "broken, and needed to train: folder (data)")


def test_an_unknown_dataset_names_the_nearest(run, tmp_path):
    status, sections, _ = run("--data-dir", tmp_path, "--dataset", "gopr")
    assert dict(sections["data"])["failed"] == "--dataset 'gopr'; did you mean 'gopro'?"
    assert status == 1


def test_reading_ends_in_time(run, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "_LIMIT", 0)
    for split in ("train", "val"):
        for i in range(3):
            save(tmp_path / split / f"{i}.png")
    _, sections, _ = run("--data-dir", tmp_path)
    assert "3 images" in dict(sections["data"])["train"]
    assert "; 1 read by one thread" in dict(sections["data"])["train"]


def test_reds(run, shared_data):
    folder = shared_data / "reds"
    status, sections, last = run("--data-dir", folder)
    assert (status, last) == (0, SOUND)
    told = dict(sections["data"])
    assert told["dataset"].startswith("clips (guessed")
    with Image.open(min(folder.glob("val_sharp/*/*.png"))) as image:
        height = image.height
    rate, speed = re.search(r"(\S+) a second, (\S+) MB/s", told["val"]).groups()
    # Four squares as high as the frame, of three bytes a pixel.
    assert float(speed) * 1e6 == pytest.approx(float(rate) * 12 * height**2, rel=0.02)


def test_cifar10(run, shared_data):
    (file,) = shared_data.glob("tfds/cifar10/*/dataset_info.json")
    lengths = {
        split["name"]: sum(map(int, split["shardLengths"]))
        for split in json.loads(file.read_text())["splits"]
    }
    status, sections, last = run("--data-dir", shared_data / "tfds")
    assert (status, last) == (0, SOUND)
    told = dict(sections["data"])
    assert told["dataset"].startswith("cifar10 (guessed")
    assert told["test"].startswith(f"{lengths['test']:,} images, the smallest 32x32")


# Workdirs.


def test_a_workdir(run, tmp_path):
    for name in ("8", "40", "120.orbax-checkpoint-tmp-1", "damaged-90-1"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": 0.1}) for step in (5, 10, 45)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 5']))
    before = sorted(tmp_path.rglob("*"))
    status, sections, last = run("--workdir", tmp_path)
    assert (status, last) == (0, SOUND)
    told = dict(sections["workdir"])
    assert re.fullmatch(r"[\d.]+ [MGT]B free", told.pop("room"))
    assert told == {
        "folder": str(tmp_path),
        "writing": f"works in {tmp_path}",
        "checkpoints": "2, the newest of step 40",
        "log": "3 lines, steps 5 to 45",
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_a_workdir_that_is_not_made_yet(run, tmp_path):
    folder = tmp_path / "runs" / "first"
    status, sections, last = run("--workdir", folder)
    assert (status, last) == (0, SOUND)
    told = dict(sections["workdir"])
    assert told["folder"] == f"{folder} (does not exist yet)"
    assert told["writing"] == f"works in {tmp_path}"
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_cannot_be_written(run, tmp_path):
    file = tmp_path / "file"
    file.touch()
    status, sections, last = run("--workdir", file / "run")
    assert dict(sections["workdir"])["writing"].startswith(f"fails in {file}: ")
    assert (status, last) == (1, "broken, and needed to train: writing (workdir)")


def test_a_workdir_in_object_storage(run, monkeypatch):
    storage = fsspec.filesystem("memory")
    monkeypatch.setattr(fsspec, "url_to_fs", lambda url: (storage, "/doctor/run"))
    storage.pipe_file("/doctor/run/config.json", b"{}")
    status, sections, last = run("--workdir", "s3://doctor/run")
    assert (status, last) == (0, SOUND)
    assert dict(sections["workdir"]) == {
        "folder": "s3://doctor/run (in object storage)",
        "listing": "works, 1 files",
        "writing": "works",
    }
    assert storage.find("/doctor/run") == ["/doctor/run/config.json"]

    def refused(*_, **__):
        raise PermissionError("no access")

    monkeypatch.setattr(type(storage), "pipe_file", refused)
    for url, message in (("s3://doctor/run", "no access"), ("none://x", "s3://BUCKET/FOLDER")):
        status, sections, last = run("--workdir", url)
        assert message in dict(sections["workdir"])["failed"]
        assert (status, last) == (1, "broken, and needed to train: failed (workdir)")


# The command itself.


def test_a_dataset_without_its_folder(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--dataset", "reds"])
    assert end.value.code == 2
    message = "error: --dataset reds says what --data-dir holds; give both\n"
    assert capsys.readouterr() == ("", message)


def test_help_loads_nothing_heavy():
    program = (
        "import sys, contextlib; from jaxdeblur import cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['doctor', '--help'])\n"
        "print({'numpy', 'jax', 'grain', 'PIL', 'tensorstore'} & set(sys.modules))"
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert "--data-dir" in out
    assert out.splitlines()[-1] == "set()"
