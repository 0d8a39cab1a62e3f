"""`jaxdeblur doctor`: what it says of sound and of broken installations, devices and folders."""

import importlib.metadata
import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import jaxdeblur
from jaxdeblur import cli
from jaxdeblur.cli import doctor
from jaxdeblur.data import clip_folders, frame_store

REPOSITORY = Path(__file__).parents[2]
SOUND = "nothing that training needs is broken"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher and no proxies, whatever starts the tests."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command, without devices unless told; returns its status, sections and last line."""

    def run(*arguments, devices=False):
        if not devices:
            monkeypatch.setattr(doctor, "_devices", lambda _: iter([doctor.Line("none", "here")]))
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


def in_process(*arguments, path=(), flags=(), **environment):
    """Runs the command in a process of its own; returns what `run` does."""
    program = (
        f"import sys; sys.path[:0] = {[*map(str, path)]}; from jaxdeblur import cli; cli.main()"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    process = subprocess.run(
        [sys.executable, *flags, "-c", program, "doctor", *map(str, arguments)],
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
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def declared():
    """The requirements in pyproject.toml, by extra; "" for those that need none."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    names = ("", "train", "cifar", "media", "keras")
    return {extra: [Requirement(text).name for text in extras[extra]] for extra in names}


# Versions.


def test_versions_are_those_of_the_installed_packages(run):
    program = (
        "import importlib.metadata, json;"
        "print(json.dumps([[d.name, d.version] for d in importlib.metadata.distributions()]))"
    )
    listed = subprocess.check_output([sys.executable, "-c", program], cwd="/")
    installed = {canonicalize_name(name): version for name, version in json.loads(listed)}
    _, sections, _ = run()
    told = dict(sections["versions"])
    assert len(told) == len(sections["versions"])
    assert told["jaxdeblur"] == f"{jaxdeblur.__version__} ({REPOSITORY / 'jaxdeblur'})"
    assert told["Python"] == f"{sys.version.split()[0]} ({sys.executable})"
    needed = {name for names in declared().values() for name in names}
    assert needed | {"jaxlib"} <= told.keys()
    for name in needed & {name for name in told if canonicalize_name(name) in installed}:
        assert told[name] == installed[canonicalize_name(name)]
    assert told["jaxlib"] == installed["jaxlib"]
    assert not {"pytest", "ruff", "jaxdeblur[all]"} & told.keys()


@pytest.mark.parametrize(
    ("installed", "needed", "line"),
    [
        ("0.2.10", {"train": "0.2.8"}, ("0.2.10", False)),
        ("0.10.2.dev20260101", {"": "0.10"}, ("0.10.2.dev20260101", False)),
        ("0.2.7", {"train": "0.2.8"}, ("0.2.7, but jaxdeblur[train] needs 0.2.8 or newer", True)),
        ("0.9", {"": "0.10"}, ("0.9, but jaxdeblur needs 0.10 or newer", True)),
        ("11.1", {"media": "11.3", "train": "11"}, ("jaxdeblur[media] needs 11.3", False)),
        (None, {"media": "11.3", "train": "11"}, ("pip install 'jaxdeblur[train]'", True)),
        (None, {"keras": "3"}, ("not installed (pip install 'jaxdeblur[keras]')", False)),
        (None, {"": "0.10"}, ("not installed (pip install 'jaxdeblur')", True)),
        (None, {}, ("not installed", True)),
    ],
)
def test_old_and_missing_packages_are_told(monkeypatch, installed, needed, line):
    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    told = doctor._package("some-package", needed)
    assert line[0] in told.value
    assert told.broken == line[1]


def core_only(folder):
    """Makes a folder of links to jaxdeblur and what it needs without extras; returns the names."""
    names, waiting = set(), ["jaxdeblur"]
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        if canonicalize_name(distribution.name) in names:
            continue
        names.add(canonicalize_name(distribution.name))
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
        tops = {file.parts[0] for file in distribution.files or ()} - {".."}
        for top in tops:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))
    for top in ("jaxdeblur", "jaxdeblur.egg-info"):
        if not (folder / top).exists() and (REPOSITORY / top).exists():
            (folder / top).symlink_to(REPOSITORY / top)
    return names


def test_without_the_train_extra_it_says_what_is_missing(tmp_path):
    there = core_only(tmp_path)
    missing = {name for name in declared()["train"] if canonicalize_name(name) not in there}
    assert "grain" in missing
    arguments = ("--data-dir", tmp_path, "--dataset", "photos", "--workdir", tmp_path)
    status, sections, last = in_process(*arguments, path=[tmp_path], flags=["-S"])
    told = dict(sections["versions"])
    hint = "not installed (pip install 'jaxdeblur[train]')"
    assert {name for name in declared()["train"] if told[name] == hint} == missing
    assert told["numpy"] == np.__version__
    data = dict(sections["data"])
    assert re.fullmatch(
        r"No module named '\w+' \(pip install 'jaxdeblur\[train\]'\)", data["failed"]
    )
    assert "GFLOP/s" in dict(sections["devices"])["matrix product"]
    assert dict(sections["workdir"])["writing"] == "works"
    assert status == 1
    before, names = last.split(": ")
    assert before == "broken, and needed to train"
    assert set(names.split(", ")) == {f"{name} (versions)" for name in missing} | {"failed (data)"}


# Machine, cluster, devices.


def test_a_whole_run(tmp_path):
    """Of a process of a Slurm job whose others never come: it must not wait for them."""
    plugin = tmp_path / "path" / "jax_cuda99_plugin-1.2.3.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: jax-cuda99-plugin\nVersion: 1.2.3\n"
    )
    caches = tmp_path / "caches"
    caches.mkdir()
    slurm = {
        "SLURM_JOB_ID": "77",
        "SLURM_NTASKS": "8",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_PROCID": "3",
    }
    environment = {
        **slurm,
        "OMPI_COMM_WORLD_NAME": "\xfc\nber",
        "HTTPS_PROXY": "http://me:secret@proxy:1",
        "XDG_CACHE_HOME": str(caches),
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": str(plugin.parent),
    }
    status, sections, last = in_process(**environment)
    assert (status, last) == (0, SOUND)
    assert list(sections) == ["versions", "machine", "cluster", "devices"]
    assert dict(sections["versions"])["plugins"].split(", ").count("jax-cuda99-plugin 1.2.3") == 1

    machine = dict(sections["machine"])
    if hasattr(os, "sched_getaffinity"):
        assert machine["cores"].startswith(f"{len(os.sched_getaffinity(0))} usable of ")
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    assert float(machine["memory"].split(" GB")[0]) == pytest.approx(gigabytes, rel=0.01)
    assert machine["current folder"].startswith(f"{os.getcwd()}, ")

    cluster = dict(sections["cluster"])
    assert cluster.pop("job") == "Slurm, process 3 of 8"
    assert cluster.pop("proxies") == "HTTPS_PROXY (values not shown)"
    assert cluster.pop("OMPI_COMM_WORLD_NAME") == "\\xfc ber"
    assert slurm.items() <= cluster.items()
    assert "secret" not in str(sections)

    devices = dict(sections["devices"])
    assert devices["backend"] == jax.default_backend()
    assert devices["devices"] == f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    side, first, then, rate = re.fullmatch(
        r"(\d+)x\1, float32: (\S+) s with compiling, then (\S+) s, (\d+) GFLOP/s",
        devices["matrix product"],
    ).groups()
    assert float(first) > 0
    assert 2 * int(side) ** 3 / float(then) / 1e9 == pytest.approx(int(rate), rel=0.02, abs=1)

    folder, remark = devices["cache"].split(", ")
    assert remark == "not made yet"
    assert list(caches.iterdir()) == []
    program = "from jaxdeblur import startup; print(startup.use_compilation_cache())"
    environment.update({k: v for k, v in os.environ.items() if not k.startswith("JAX_")})
    environment["XDG_CACHE_HOME"] = str(caches)
    used = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert folder == used.strip()


def test_the_cache_of_jax_itself_is_measured(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(bytes(1_200_000))
    (tmp_path / "two").write_bytes(bytes(300_000))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert doctor._cache() == f"{tmp_path}, 1.5 MB in 2 files"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "two" / "below"))
    assert doctor._cache().endswith("below, cannot be made")


@pytest.mark.parametrize(
    ("environment", "lines", "broken"),
    [
        ({}, {"job": "alone"}, False),
        ({"SLURM_NTASKS": "4"}, {"job": "alone", "remark": "start it with srun"}, False),
        (
            {"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "2"},
            {"job": "set JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID": "1"},
            True,
        ),
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
            {"job": "alone", "OMPI_COMM_WORLD_SIZE": "1"},
            False,
        ),
    ],
)
def test_what_the_launcher_says_is_told(run, monkeypatch, environment, lines, broken):
    for name in [name for name in os.environ if name.startswith("JAX_")]:
        monkeypatch.delenv(name)
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
    status, sections, last = run("--workdir", tmp_path, devices=True)
    assert (status, last) == (1, "broken, and needed to train: failed (devices)")
    assert re.search(message, " ".join(value for _, value in sections["devices"]))
    assert dict(sections["workdir"])["writing"] == "works"


def test_the_compilation_cache_stays_as_it_is(run, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    _, sections, _ = run(devices=True)
    assert "GFLOP/s" in dict(sections["devices"])["matrix product"]
    assert dict(sections["devices"])["cache"] == f"{tmp_path}, 0 bytes in 0 files"
    assert list(tmp_path.iterdir()) == []


def test_devices_that_hang_are_given_up(run, monkeypatch):
    monkeypatch.setattr(doctor, "_DEVICES_LIMIT", 0.05)
    status, sections, last = run(devices=True)
    assert (status, last) == (1, "broken, and needed to train: failed (devices)")
    assert dict(sections["devices"])["failed"] == "no answer within 0 s"


def test_a_device_that_computes_wrong_is_told(monkeypatch):
    monkeypatch.setattr(jax.numpy, "matmul", lambda a, b: (a @ b).at[1, 7].add(1))
    line = doctor._product(jax.devices()[0])
    assert "computes wrong numbers" in line.value
    assert line.broken


def test_a_section_that_fails_says_why_and_the_others_follow(run, monkeypatch):
    def fail():
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr(doctor.platform, "platform", fail)
    status, sections, last = run()
    assert [name for name, _ in sections["versions"]] == ["jaxdeblur", "Python", "failed"]
    assert sections["versions"][-1][1] == "RuntimeError: no such thing"
    assert dict(sections["cluster"])["job"] == "alone"
    assert (status, last) == (0, SOUND)


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/a/b", {"a/memory.max": "7000", "a/b/memory.max": "max"}, 7000),
        ("0::/a/b", {"a/memory.max": "7000", "a/b/memory.max": "5000"}, 5000),
        ("0::/outside", {"memory.max": "300"}, 300),
        ("0::/", {"memory.max": "max"}, None),
        ("4:cpu,memory:/x\n0::/", {"memory/x/memory.limit_in_bytes": "90"}, 90),
        ("4:cpu:/x", {"memory/x/memory.limit_in_bytes": "90"}, None),
    ],
)
def test_the_memory_of_the_control_group(tmp_path, own, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    groups = tmp_path / "own"
    groups.write_text(own + "\n")
    assert doctor._memory_limit(groups, tmp_path) == limit


# Data.


def test_photographs(run, tmp_path):
    for name, size in (("train/a", (40, 30)), ("train/b", (50, 20)), ("val/a", (60, 80))):
        save(tmp_path / f"{name}.png", size)
    status, sections, last = run("--data-dir", tmp_path)
    assert (status, last) == (0, SOUND)
    data = dict(sections["data"])
    assert data["folder"] == str(tmp_path)
    assert data["dataset"].startswith("photos (guessed")
    assert data["train"].startswith("2 images, the smallest 50x20, opened in ")
    assert "; 2 read by one thread, " in data["train"]
    assert data["val"].startswith("1 images, the smallest 60x80")
    assert data["test"] == "the same as val"


def test_three_photographs_are_too_few_to_hold_one_out(run, tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png")
    status, sections, last = run("--data-dir", tmp_path, "--dataset", "photos")
    data = dict(sections["data"])
    assert data["dataset"] == "photos"
    assert data["train"].startswith("3 images, the smallest 40x30")
    assert "holds no images" in data["val"]
    assert (status, last) == (1, "broken, and needed to train: val (data)")


@pytest.fixture
def logging_to_stderr(capsys):
    """A root logger that prints, as the one that absl makes when it is imported."""
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


@pytest.mark.usefixtures("logging_to_stderr")
def test_damaged_photographs_are_named(run, tmp_path):
    for i in range(5):
        save(tmp_path / "train" / f"{i}.png")
        save(tmp_path / "val" / f"{i}.png")
    cut(tmp_path / "train" / "2.png")
    for i in range(5):
        (tmp_path / "val" / f"{i}.png").write_text("no picture")
    status, sections, last = run("--data-dir", tmp_path)
    names = [name for name, _ in sections["data"]]
    assert names == ["folder", "dataset", "train", "warning", "val", *["warning"] * 4, "test"]
    values = [value for _, value in sections["data"]]
    assert "; 5 read by one thread" in values[2]
    assert re.search(r"train/2\.png: damaged", values[3])
    assert "none of its 5 files is a readable image" in values[4]
    assert re.search(r"val/0\.png: left out", values[5])
    assert values[8:] == ["and 2 more", "the same as val"]
    assert (status, last) == (1, "broken, and needed to train: val (data)")


def clips(folder):
    for kind in ("blur", "sharp"):
        for clip in ("a", "b"):
            for i in range(3):
                save(folder / clip / kind / f"{i}.png", (64, 48), i)


def test_clips_and_a_store_of_them(run, tmp_path):
    clips(tmp_path / "clips")
    store = tmp_path / "store"
    frame_store.write(clip_folders.open_folder(tmp_path / "clips", "blur"), store, "blur")
    for folder in (tmp_path / "clips", store):
        status, sections, last = run("--data-dir", folder)
        assert (status, last) == (0, SOUND)
        data = dict(sections["data"])
        assert data["dataset"].startswith("clips (guessed")
        for split in ("train", "val"):  # one clip is held out
            assert data[split].startswith("3 frames, the smallest 64x48")
            assert "; 3 read by one thread" in data[split]
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
    (tmp_path / "b" / "sharp" / "2.png").unlink()
    status, sections, last = run("--data-dir", tmp_path)
    data = dict(sections["data"])
    assert "no sharp partner of 2" in data["train"]
    assert (data["val"], data["test"]) == ("the same as train", "the same as train")
    assert (status, last) == (1, "broken, and needed to train: train (data), val (data)")


@pytest.mark.parametrize("dataset", [(), ("--dataset", "cifar10")])
def test_a_folder_that_is_missing(run, tmp_path, dataset):
    status, sections, last = run("--data-dir", tmp_path / "none", *dataset)
    assert sections["data"] == [("folder", f"{tmp_path}/none is no folder")]
    assert (status, last) == (1, "broken, and needed to train: folder (data)")


def test_reading_ends_in_time(run, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_READING_LIMIT", 0)
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
    data = dict(sections["data"])
    assert data["dataset"].startswith("clips (guessed")
    for split in ("train", "val"):
        files = sorted(folder.glob(f"{split}_sharp/*/*.png"))
        with Image.open(files[0]) as image:
            width, height = image.size
        count, rate, speed = re.fullmatch(
            rf"{len(files)} frames, the smallest {width}x{height}, opened in \S+ s; "
            r"(\d+) read by one thread, (\S+) a second, (\S+) MB/s",
            data[split],
        ).groups()
        assert int(count) == len(files)
        # Four squares as high as the frame, of three bytes a pixel.
        assert float(speed) * 1e6 == pytest.approx(float(rate) * 12 * height**2, rel=0.02)
    assert data["test"] == "the same as val"


def test_cifar10(run, shared_data):
    folder = shared_data / "tfds"
    (file,) = folder.glob("cifar10/*/dataset_info.json")
    lengths = {
        split["name"]: sum(map(int, split["shardLengths"]))
        for split in json.loads(file.read_text())["splits"]
    }
    status, sections, last = run("--data-dir", folder)
    assert (status, last) == (0, SOUND)
    data = dict(sections["data"])
    assert data["dataset"].startswith("cifar10 (guessed")
    counts = {
        split: int(data[split].split(" images, the smallest 32x32")[0].replace(",", ""))
        for split in ("train", "val", "test")
    }
    assert counts["train"] + counts["val"] == lengths["train"]
    assert counts["train"] == pytest.approx(0.8 * lengths["train"], abs=1)
    assert counts["test"] == lengths["test"]
    rate, speed, unit = re.search(r"(\S+) a second, (\S+) ([MG])B/s", data["train"]).groups()
    bytes_a_second = float(speed) * {"M": 1e6, "G": 1e9}[unit]
    assert bytes_a_second == pytest.approx(float(rate.replace(",", "")) * 32 * 32 * 3, rel=0.01)


# Workdirs.


def test_a_workdir(run, tmp_path):
    for name in ("8", "40", "120.orbax-checkpoint-tmp-1", "damaged-90-1"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / "999").touch()
    lines = [json.dumps({"step": step, "loss": 0.1}) for step in (5, 10, 45)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 5']))
    before = sorted(tmp_path.rglob("*"))
    status, sections, last = run("--workdir", tmp_path)
    assert (status, last) == (0, SOUND)
    workdir = dict(sections["workdir"])
    assert re.fullmatch(r"[\d.]+ [MGT]B free", workdir.pop("room"))
    assert workdir == {
        "folder": str(tmp_path),
        "writing": "works",
        "checkpoints": "2, the newest of step 40",
        "metrics.jsonl": "3 lines, steps 5 to 45, and 1 unreadable",
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_a_workdir_that_is_not_made_yet(run, tmp_path):
    folder = tmp_path / "runs" / "first"
    status, sections, last = run("--workdir", folder)
    assert (status, last) == (0, SOUND)
    workdir = dict(sections["workdir"])
    assert workdir["folder"] == f"{folder} (does not exist yet)"
    assert workdir["writing"] == f"works in {tmp_path}"
    assert (workdir["checkpoints"], workdir["metrics.jsonl"]) == ("none", "none")
    assert list(tmp_path.iterdir()) == []


def test_workdirs_that_cannot_be_written(run, tmp_path):
    file = tmp_path / "file"
    file.touch()
    status, sections, last = run("--workdir", file / "run")
    assert sections["workdir"] == [("folder", f"{file} is no folder")]
    assert (status, last) == (1, "broken, and needed to train: folder (workdir)")
    if not Path("/proc/self").is_dir():
        pytest.skip("no folder that even root cannot write")
    status, sections, last = run("--workdir", "/proc/run")
    assert dict(sections["workdir"])["writing"].startswith("fails in /proc: ")
    assert (status, last) == (1, "broken, and needed to train: writing (workdir)")


# The command itself.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "reds"], "error: --dataset reds says what --data-dir holds; give both"),
        (["--data-dir", ".", "--dataset", "red"], "error: argument --dataset: invalid choice"),
        (["--workdir"], "error: argument --workdir: expected one argument"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", *arguments])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_help_loads_nothing_heavy():
    program = (
        "import sys, contextlib; from jaxdeblur import cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['doctor', '--help'])\n"
        "print({'numpy', 'jax', 'grain', 'PIL', 'tensorstore'} & set(sys.modules))"
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert "--data-dir" in out
    assert out.splitlines()[-1] == "set()"
