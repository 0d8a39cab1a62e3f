import fcntl
import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import flags, metrics_lines, tiny_config

import jaxdeblur
from jaxdeblur import training
from jaxdeblur.errors import InputError, TrainingError
from jaxdeblur.training import reporting, runs
from jaxdeblur.workdir import checkpoints

ROOT = Path(__file__).parents[2]


def add_photo(folder, number, size=24):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{number:03d}.png")


@pytest.fixture
def photos(tmp_path):
    for number in range(4):
        add_photo(tmp_path / "photos" / "train", number)
    add_photo(tmp_path / "photos" / "val", 99)
    return tmp_path / "photos"


def epochs_config(photos, **changes):
    return tiny_config(
        dataset="photos", data_dir=str(photos), num_steps=0, num_epochs=2, batch_size=2, **changes
    )


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_stays_finished_when_its_data_grow_or_shrink(photos, tmp_path):
    workdir = tmp_path / "run"
    training.train_and_evaluate(epochs_config(photos), workdir)
    assert checkpoints.steps(workdir)[-1] == 4
    before = contents(workdir)
    for number in range(4, 10):
        add_photo(photos / "train", number)
    state = training.train_and_evaluate(epochs_config(photos), workdir)
    assert int(state.step) == 4
    for path in sorted((photos / "train").iterdir())[2:]:
        path.unlink()
    assert int(training.train_and_evaluate(epochs_config(photos), workdir).step) == 4
    assert contents(workdir) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param("nothing", None, marks=pytest.mark.slow),
        ("more", "train: 6 now, 4 then"),
        pytest.param("others of the same names", "train: others", marks=pytest.mark.slow),
        pytest.param("other names", "train: others", marks=pytest.mark.slow),
        pytest.param("validation", "val: 2 now, 1 then", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_goes_on_with_other_data_says_so(photos, tmp_path, capsys, change, told):
    workdir = tmp_path / "run"
    config = epochs_config(photos, checkpoint_every_steps=1)
    training.train_and_evaluate(config, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    if change == "more":
        add_photo(photos / "train", 4)
        add_photo(photos / "train", 5)
    elif change == "others of the same names":
        add_photo(photos / "train", 1, size=40)
    elif change == "other names":
        (photos / "train" / "001.png").rename(photos / "train" / "0011.png")
    elif change == "validation":
        add_photo(photos / "val", 98)
    capsys.readouterr()
    state = training.train_and_evaluate(config, workdir)
    assert int(state.step) == 4  # as many as it began with
    remarks = [line for line in capsys.readouterr().err.splitlines() if "the data have" in line]
    expected = [f"warning: the data have changed since the run began ({told})"] if told else []
    assert remarks == expected


def test_a_second_training_of_a_workdir_is_refused_and_reading_is_not(tmp_path, monkeypatch):
    told, step = [], runs.Run.step

    def step_and_try(self, number):
        step(self, number)
        if number == 5 and not told:
            with pytest.raises(InputError, match=r"run' is in use by another training; wait") as e:
                training.train_and_evaluate(tiny_config(), tmp_path / "run")
            told.append(e)
            jaxdeblur.load(tmp_path / "run")

    monkeypatch.setattr(runs.Run, "step", step_and_try)
    training.train_and_evaluate(tiny_config(), tmp_path / "run")
    assert told
    assert [line["step"] for line in metrics_lines(tmp_path / "run")] == [2, 3, 3, 4, 6, 6]
    training.train_and_evaluate(tiny_config(), tmp_path / "run")  # nobody holds it any more


def test_of_two_that_begin_a_workdir_at_once_one_is_refused(tmp_path, monkeypatch):
    """Both have found no run there when they started; the other one ends before this one begins."""
    begin, finished = runs.Run.begin, []

    def begin_second(self):
        if not finished:
            finished.append(True)
            training.train_and_evaluate(tiny_config(), tmp_path / "run")
        begin(self)

    monkeypatch.setattr(runs.Run, "begin", begin_second)
    with pytest.raises(InputError, match="another training has begun there since this one"):
        training.train_and_evaluate(tiny_config(), tmp_path / "run")
    assert checkpoints.steps(tmp_path / "run")[-1] == 6


def test_where_the_file_system_knows_no_locks_a_run_goes_on(tmp_path, monkeypatch):
    def unknown(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unknown)
    for _ in range(2):
        training.train_and_evaluate(tiny_config(num_steps=2), tmp_path)
    assert checkpoints.steps(tmp_path) == [2]


@pytest.mark.slow
def test_a_killed_run_leaves_its_workdir_to_the_next(tmp_path):
    config = tiny_config(num_steps=100_000, checkpoint_every_steps=1, eval_every_steps=50_000)
    command = [sys.executable, "train.py", "--config", "configs/quickstart.py", *flags(config)]
    command += ["--workdir", str(tmp_path)]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoints.steps(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].startswith(f"error: workdir = '{tmp_path}' is in use")
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    third = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert third.stderr is not None
    assert any("going on after step" in line for line in third.stderr)
    third.kill()
    third.communicate()


# Places and files that are not as they should be.


def loop(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path / "loop" / "run"


ODD_WORKDIRS = {
    "no such user": lambda tmp_path: "~nosuchuser/x",
    "long name": lambda tmp_path: tmp_path / ("x" * 300),
    "long path": lambda tmp_path: tmp_path / ("a/" * 2100 + "x"),
    "link loop": loop,
    "not UTF-8": lambda tmp_path: tmp_path / "run\udcff",
    "zero byte": lambda tmp_path: f"{tmp_path}/a\0b",
}


@pytest.mark.parametrize("place", ODD_WORKDIRS.values(), ids=ODD_WORKDIRS)
def test_workdirs_that_cannot_be_are_told_before_anything_is_made(tmp_path, place):
    workdir = place(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="workdir = "):
        training.train_and_evaluate(tiny_config(), workdir)
    if "udcff" not in ascii(workdir):
        with pytest.raises(InputError, match="weights = "):
            jaxdeblur.load(workdir)
    assert sorted(tmp_path.iterdir()) == before


def test_a_workdir_may_have_a_newline_in_its_name(tmp_path):
    training.train_and_evaluate(tiny_config(num_steps=1), tmp_path / "a\nb")
    assert jaxdeblur.load(tmp_path / "a\nb").card["channels"] == 3


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "data.json"])
def test_folders_in_place_of_its_files_are_told(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        training.train_and_evaluate(tiny_config(), tmp_path)


def test_files_in_place_of_its_folders_are_told(tmp_path):
    (tmp_path / "pictures").write_text("mine")
    with pytest.raises(InputError, match=r"workdir = .* cannot be written .*pictures"):
        training.train_and_evaluate(tiny_config(), tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "checkpoints").write_text("mine")
    with pytest.raises(InputError, match="checkpoints' should be the folder of the checkpoints"):
        training.train_and_evaluate(tiny_config(), tmp_path / "other")
    assert (tmp_path / "pictures").read_text() == "mine"


def test_a_read_only_place_is_told(photos, tmp_path, somebody_else):
    (tmp_path / "place").mkdir(mode=0o555)
    with somebody_else(), pytest.raises(InputError, match=r"workdir = .* cannot be written"):
        training.train_and_evaluate(epochs_config(photos), tmp_path / "place" / "run")


def test_the_log_keeps_what_others_wrote_and_is_strict(tmp_path, caplog):
    def refuse(word):
        raise AssertionError(word)

    config = tiny_config(num_steps=2, checkpoint_every_steps=1, min_sigma=0.0, max_sigma=0.0)
    training.train_and_evaluate(config, tmp_path)  # no blur: every PSNR is infinite
    shutil.rmtree(tmp_path / "checkpoints" / "2")
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"note": "of mine", "x": NaN}\n\xff\xfe\x00\n{"step": 2, "eval/ps')
    training.train_and_evaluate(config, tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text()
    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert {"note": "of mine", "x": None} in lines
    evaluation = lines[-1]
    assert (evaluation["step"], evaluation["eval/blurred_psnr"]) == (2, None)
    assert not [r for r in caplog.records if "NaN or Inf" in r.getMessage()]


# Full disks.


class FullDisk:
    """A file whose disk is full after some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if len(data) > self.room:
            raise OSError(28, "No space left on device")
        self.room -= len(data)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 100, 5000])
def test_a_disk_too_full_for_tensorboard_is_said_once_and_the_run_goes_on(
    tmp_path, monkeypatch, caplog, room
):
    from tensorboardX import record_writer

    opened = record_writer.open_file
    monkeypatch.setattr(record_writer, "open_file", lambda path: FullDisk(opened(path), room))
    with caplog.at_level(logging.WARNING):
        state = training.train_and_evaluate(tiny_config(), tmp_path)
    assert int(state.step) == 6
    remarks = [r.getMessage() for r in caplog.records if "TensorBoard" in r.getMessage()]
    assert len(remarks) == 1
    assert "tensorboard cannot be written (No space left on device)" in remarks[0]
    assert len(metrics_lines(tmp_path)) == 6


def test_a_disk_too_full_for_the_log_ends_the_run_in_a_line(tmp_path, monkeypatch):
    def scalars(self, step, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reporting.RunLog, "scalars", scalars)
    with pytest.raises(TrainingError, match=r"cannot be written .*No space left.*Make room"):
        training.train_and_evaluate(tiny_config(), tmp_path)


@pytest.fixture
def tiny_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_half_written_line_is_an_error_now_and_dropped_later(tiny_disk):
    from jaxdeblur.training import reporting

    run = tiny_disk / "run"
    run.mkdir()
    with reporting.RunLog(run, 0) as run_log:

        def fill():
            while True:
                run_log.scalars(3, {"loss": 0.5})

        with pytest.raises(OSError, match="No space left"):
            fill()
    for path in (run / "tensorboard").iterdir():
        path.unlink()
    written = (run / "metrics.jsonl").read_bytes()
    assert not written.endswith(b"}\n")
    (run / "metrics.jsonl").write_bytes(written[-1000:])
    with reporting.RunLog(run, 3):
        pass
    assert {line["step"] for line in metrics_lines(run)} == {3}
