"""Real processes that are asked to end: at once, silently, with the status that shells expect."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HELD = """
import signal, sys, time
from pathlib import Path
from jaxdeblur.runtime import atomic, signals
signals.end_at_once()
folder = Path(sys.argv[1])
(folder / "copy").mkdir()
(folder / "copy" / "x").touch()
with signals.unfinished(folder / "copy"), atomic.replacing(folder / "a", overwrite=True) as partial:
    partial.write_text("half")
    print("there", flush=True)
    time.sleep(60)
"""


def start(code, *arguments, **options):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGINT, "error: interrupted\n"), (signal.SIGTERM, ""), (signal.SIGHUP, "")],
)
def test_a_process_that_is_asked_to_end_leaves_nothing_unfinished(tmp_path, number, told):
    (tmp_path / "a").write_text("before")
    with start(HELD, tmp_path) as process:
        assert process.stdout.readline() == "there\n"
        assert len(list(tmp_path.iterdir())) == 3
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + number, "", told)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_what_is_ignored_stays_ignored(tmp_path):
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with start(before + HELD.replace("60", "0.5"), tmp_path) as process:
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 0
    assert (tmp_path / "a").read_text() == "half"


def test_a_run_is_ended_in_order_and_at_once_when_asked_again():
    code = """
import time
from jaxdeblur.runtime import signals
signals.end_at_once()
signals.raise_again()
try:
    print("there", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("closing", flush=True)
    time.sleep(60)
"""
    with start(code) as process:
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "closing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "error: interrupted\n")
    assert process.returncode == 130


INTERRUPTED = """
import os, signal, time, weakref
from jaxdeblur.runtime import signals
signals.end_at_once()
signals.raise_again()
signals.check()
def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
class Kept:
    pass
class Ended:
    def __del__(self):
        interrupt()
kept = {made}
try:
    del kept
    print("goes on", flush=True)
    time.sleep({pause})
    signals.check()
except KeyboardInterrupt:
    print("ends", flush=True)
"""


def test_an_interrupt_waits_where_it_would_be_lost():
    with start(INTERRUPTED.format(made="Ended()", pause=30)) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "goes on\nends\n", "")


def test_an_interrupt_that_is_lost_is_raised_again():
    made = "Kept(); reference = weakref.ref(kept, interrupt)"
    with start(INTERRUPTED.format(made=made, pause=0)) as process:
        out, err = process.communicate(timeout=20)
    assert out == "goes on\nends\n"
    assert "Exception ignored" in err  # as Python tells it


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "jaxdeblur", "models"],
        ["-c", "import sys; from jaxdeblur.cli import main; sys.exit(main())", "models"],
        ["-m", "jaxdeblur", "train", "quickstart", "--workdir", "run"],
        [str(ROOT / "train.py"), "--config", "quickstart", "--workdir", "run"],
        [str(ROOT / "eval.py"), "--config", "quickstart"],
    ],
)
def test_while_it_imports_a_command_ends_without_a_traceback(tmp_path, command):
    """The signal comes when the first of the slow imports begins, and would go lost in it."""
    (tmp_path / "jax.py").write_text(
        "import time\nprint('importing', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept BaseException as e:\n    raise ImportError from e"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"error: interrupted\n")
