"""Files in the making: whole or not at all, with the right permissions, and nothing left behind."""

import fcntl
import os
import signal
import stat
import subprocess
import sys

import pytest

from jaxdeblur.errors import InputError
from jaxdeblur.runtime import atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    with atomic.replacing(tmp_path / "a.png", overwrite=False) as partial:
        partial.write_bytes(b"1")
        assert partial.suffix == ".png"
        assert not (tmp_path / "a.png").exists()
    assert names(tmp_path) == ["a.png"]

    def fail():
        with atomic.replacing(tmp_path / "a.png", overwrite=True) as partial:
            partial.write_bytes(b"2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"1"


def test_the_slower_of_two_is_told_that_the_file_exists(tmp_path):
    def write():
        with atomic.replacing(tmp_path / "a.png", overwrite=False) as partial:
            partial.write_bytes(b"slow")
            (tmp_path / "a.png").write_bytes(b"quick")

    with pytest.raises(atomic.ExistsError, match=r"a\.png: exists; give --overwrite"):
        write()
    assert (tmp_path / "a.png").read_bytes() == b"quick"
    assert names(tmp_path) == ["a.png"]
    assert issubclass(atomic.ExistsError, InputError)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_permissions_are_those_of_another_file(tmp_path, mode):
    (tmp_path / "source").touch()
    (tmp_path / "source").chmod(mode)
    (tmp_path / "there").touch(mode=0o666)
    for name, overwrite in (("new", False), ("there", True)):
        options = {"overwrite": overwrite, "like": tmp_path / "source"}
        with atomic.replacing(tmp_path / name, **options) as partial:
            assert stat.S_IMODE(partial.stat().st_mode) == mode  # before there is anything to read
            partial.write_bytes(b"secret")
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


@pytest.mark.parametrize("mode", [0o444, 0o400, 0o000])
def test_a_file_like_one_that_may_only_be_read_is_written(tmp_path, somebody_else, mode):
    (tmp_path / "source").touch()
    (tmp_path / "source").chmod(mode)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o777)
    target = tmp_path / "folder" / "a.png"
    with (
        somebody_else(),
        atomic.replacing(target, overwrite=False, like=tmp_path / "source") as partial,
    ):
        partial.write_bytes(b"1")
    assert target.read_bytes() == b"1"
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_pipe_has_no_permissions_to_give(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with atomic.replacing(tmp_path / "a", overwrite=False, like=tmp_path / "pipe"):
        pass
    (tmp_path / "other").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_is_in_the_way_is_told_before_and_left(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    told = {
        "folder": "is not a file",
        "pipe": "is not a file",
        "link": "leads nowhere",
        "file": "exists",
        "missing/a": "its folder does not exist",
        "file/a": "its folder does not exist",
        "a\0b": "no name may hold a zero byte",
    }
    before = names(tmp_path)
    for name, reason in told.items():
        with pytest.raises(InputError, match=reason):
            atomic.check_free(tmp_path / name, overwrite=False)
    assert atomic.check_free(tmp_path / "link", overwrite=True) == tmp_path / "nowhere"
    assert atomic.check_free(tmp_path / "file", overwrite=True) == tmp_path / "file"
    assert atomic.check_free(tmp_path / "new", overwrite=False) == tmp_path / "new"
    assert names(tmp_path) == before


def test_a_file_that_appears_while_it_is_looked_for_exists(tmp_path, monkeypatch):
    look = os.path.exists

    def slow(path):
        found = look(path)
        (tmp_path / "a").touch()
        return found

    monkeypatch.setattr(atomic.os.path, "exists", slow)
    with pytest.raises(atomic.ExistsError):
        atomic.check_free(tmp_path / "a", overwrite=False)


def test_a_file_that_is_taken_for_one_left_over_before_it_is_locked_is_made_again(
    tmp_path, monkeypatch
):
    lock, taken = fcntl.flock, []

    def slow(file, how):
        if not taken:
            taken.append(names(tmp_path))
            (tmp_path / taken[0][0]).unlink()
        lock(file, how)

    monkeypatch.setattr(atomic.fcntl, "flock", slow)
    with atomic.replacing(tmp_path / "a", overwrite=False) as partial:
        partial.write_bytes(b"1")
    assert len(taken) == 1
    assert names(tmp_path) == ["a"]


def test_what_a_killed_process_had_in_the_making_goes_and_what_is_written_stays(tmp_path):
    script = f"""
import time
from pathlib import Path
from jaxdeblur.runtime import atomic
with atomic.replacing({str(tmp_path / "a.png")!r}, overwrite=False) as partial:
    partial.write_bytes(b"half")
    print("there", flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "there\n"
        before = names(tmp_path)
        assert len(before) == 1
        atomic.remove_leftovers(tmp_path)
        assert names(tmp_path) == before
        os.kill(process.pid, signal.SIGKILL)
    assert names(tmp_path) == before
    (tmp_path / ".other.part").touch()
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == [".other.part"]
