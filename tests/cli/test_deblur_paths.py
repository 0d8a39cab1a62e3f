"""Names, pipes and standard streams as users and shells give them to `jaxdeblur deblur`."""

import io
import os
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from jaxdeblur import cli
from jaxdeblur.runtime import startup

LONG = "x" * 256 + ".png"


@pytest.fixture
def deblur(small_weights, monkeypatch, capsys, tmp_path):
    """Runs the command in a folder of its own; returns its status, output and errors."""
    monkeypatch.setattr(startup, "use_compilation_cache", lambda: None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments, model=small_weights):
        status = 0
        try:
            cli.main(["deblur", "--model", str(model), "--strength", "0.5", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def photo(path=None):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    if path is not None:
        with open(path, "wb") as target:
            target.write(file.getvalue())
    return file.getvalue()


@pytest.mark.parametrize("name", ["~a.png", "~root.png", "~nosuchuser.png", "~.png", "-a.png"])
def test_a_photograph_that_is_there_under_its_name_is_meant(deblur, name):
    photo(name)
    status, out, err = deblur("--", name)
    result = name.replace(".png", ".deblurred.png")
    assert (status, out, err) == (0, f"{result}\n", "")
    assert sorted(os.listdir()) == sorted([name, result])


def test_a_home_folder_is_meant_otherwise(deblur, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    photo(tmp_path / "a.png")
    photo("a.png")
    status, out, _ = deblur("~/a.png", "-o", "~/b.png")
    assert (status, out) == (0, f"{tmp_path / 'b.png'}\n")
    status, out, _ = deblur("a.png", "-o", "./~")  # a folder of that name
    assert (status, out) == (0, "~/a.png\n")


@pytest.mark.parametrize(
    "name", ["~nosuchuser/a.png", LONG, "d/" * 2500 + "a.png", "loop", "loop/a.png", ""]
)
@pytest.mark.parametrize("option", [None, "-o", "--compare", "--model"])
def test_what_can_be_no_path_is_told_in_a_line(deblur, name, option):
    photo("a.png")
    os.symlink("loop", "loop")
    if option is None:
        status, out, err = deblur("a.png", name)
        assert (status, out) == (1, "a.deblurred.png\n")  # the others are done
        os.unlink("a.deblurred.png")
    else:
        status, out, err = deblur("a.png", option, name)
        assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert repr(name) in line
    assert sorted(os.listdir()) == ["a.png", "loop"]


def test_a_result_whose_name_is_too_long_is_told(deblur):
    photo(f"{'x' * 251}.png")
    status, out, err = deblur(".")
    assert (status, out) == (1, "")
    assert err.endswith("cannot be written (File name too long)\n")
    photo(f"{'y' * 240}.png")
    status, out, err = deblur(".", "--side-by-side")
    assert status == 1
    assert os.path.exists(f"{'y' * 240}.deblurred.png")
    assert f"{'y' * 240}.png.comparison.png: cannot be written (File name too long)" in err


def test_what_is_no_file_is_refused_as_a_result(deblur):
    photo("a.png")
    os.mkfifo("pipe.png")
    os.symlink("nowhere.png", "link.png")
    for name, told in (
        ("pipe.png", "is not a file; give another name"),
        ("link.png", "is a link that leads nowhere; give --overwrite or another name"),
        ("/dev/null", "cannot be written (Not a directory)"),
        ("/dev/full", "cannot be written (Not a directory)"),
    ):
        status, out, err = deblur("a.png", "-o", name)
        assert (status, out) == (1, "")
        assert err.startswith("error: a.png: ")
        assert err.endswith(f"{told}\n")
    assert deblur("a.png", "-o", "link.png", "--overwrite")[0] == 0
    assert os.path.islink("link.png")
    assert os.path.isfile("nowhere.png")


def test_names_cannot_act_on_a_terminal(deblur):
    good, bad = "a\x1b[31m\n\u202eb.png", "c\r\x07 [red]:smile:.png"
    photo(good)
    with open(bad, "wb") as file:
        file.write(b"no picture")
    status, out, err = deblur(".")
    assert status == 1
    assert out == "a\\x1b[31m\\n\\u202eb.deblurred.png\n"
    (line,) = err.splitlines()
    assert line.startswith("error: c\\r\\x07 [red]:smile:.png: is ")


def test_a_pipe_is_read_where_its_result_has_a_name(deblur):
    os.mkfifo("pipe.png")
    status, _, err = deblur("pipe.png")
    assert (status, err) == (1, "error: pipe.png: is a pipe; name the file of its result with -o\n")
    writer = threading.Thread(target=photo, args=("pipe.png",))
    writer.start()
    status, out, err = deblur("pipe.png", "-o", "b.png")
    writer.join()
    assert (status, out, err) == (0, "b.png\n", "")
    with Image.open("b.png") as image, Image.open(io.BytesIO(photo())) as expected:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_what_the_shell_gives_for_a_command_is_read(deblur):
    read, write = os.pipe()
    os.write(write, photo())
    os.close(write)  # as when `cat` has ended
    assert deblur(f"/dev/fd/{read}", "-o", "b.png")[0] == 0
    os.close(read)
    assert os.path.getsize("b.png") > 0
    assert os.stat("b.png").st_mode & 0o600 == 0o600


def test_what_is_no_file_is_no_photograph(deblur):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        for name in ("socket.png", "/dev/null", "/dev/zero"):
            status, _, err = deblur(name, "-o", "b.png")
            assert (status, err) == (1, f"error: {name}: is not a file\n")


COMMAND = [sys.executable, "-m", "jaxdeblur", "deblur", "-"]


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_standard_input_without_an_end_is_refused_early(small_weights, device):
    with open(device, "rb") as endless:
        command = [*COMMAND, "--model", str(small_weights)]
        done = subprocess.run(command, stdin=endless, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: standard input: is no image")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_closed_streams_are_told(small_weights, tmp_path):
    photo(tmp_path / "a.png")
    shell = f"{sys.executable} -m jaxdeblur deblur --model {small_weights}"
    for tail, told, status in (
        ("- <&-", "error: standard input is closed; give a file, or send one through a pipe\n", 2),
        ("- <a.png >&-", "error: standard output is closed; name a file with -o\n", 2),
        ("nothing.png >&-", "error: nothing.png: does not exist\n", 1),
        ("nothing.png 2>&-", "", 1),
        ("nothing.png 2>/dev/full", "", 1),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{shell} {tail}"], cwd=tmp_path, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (status, "", told)
