import fcntl
import os
import subprocess
import sys

import pytest

from jaxdeblur.runtime import locks

HOLDER = """
import sys
from pathlib import Path
from jaxdeblur.runtime import locks
locks.held(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_is_released_when_its_process_is_killed(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(BlockingIOError):
        locks.held(path)
    holder.kill()
    holder.communicate()
    descriptor = locks.held(path)
    assert descriptor is not None
    os.close(descriptor)
    assert path.read_text() == "content"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_file_that_may_only_be_read_is_locked_as_well(tmp_path, somebody_else):
    path = tmp_path / "file"
    path.write_text("")
    path.chmod(0o444)
    with somebody_else():
        descriptor = locks.held(path)
        assert descriptor is not None
        with pytest.raises(BlockingIOError):
            locks.held(path)
    os.close(descriptor)


def test_where_there_is_nothing_or_no_lock_there_is_none(tmp_path, monkeypatch):
    assert locks.held(tmp_path / "missing") is None

    def unknown(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unknown)
    (tmp_path / "file").write_text("")
    assert locks.held(tmp_path / "file") is None
    with locks.waiting_for(tmp_path / "file"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
