"""The fuzz run over a few folders, and that its checks find what they are there for."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_random_folders_are_restored_as_they_should_be():
    command = [sys.executable, str(ROOT / "tools" / "fuzz.py"), "--folders", "40", "--seed", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; 0 failures" in done.stdout


@pytest.fixture
def fuzz(monkeypatch):
    """The modules that make folders, run commands and check."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import fuzz_checks
    import fuzz_folders
    import fuzz_runs

    return fuzz_folders, fuzz_runs, fuzz_checks


@pytest.fixture
def case(fuzz, tmp_path):
    """A folder with one sound photograph and one damaged one, which are to be restored."""
    folders = fuzz[0]
    case = folders.make(0, tmp_path / "0")
    case.given.joinpath("sound.bmp").write_bytes(folders.fuzz_pictures.photo(case.rng, ".bmp"))
    case.given.joinpath("cut.png").write_bytes(b"\x89PNG")
    case.inputs = [case.given / "sound.bmp", case.given / "cut.png"]
    case.arguments, case.output, case.nobody = list(map(str, case.inputs)), None, False
    case.sources = dict(zip(case.inputs, (folders.Fate.RESULT, folders.Fate.TOLD), strict=True))
    return case


def change(case):
    case.inputs[0].write_bytes(b"gone")


def touch(case):
    case.inputs[0].touch()


def leave(case):
    (case.given / ".jaxdeblur-0123.part.png").touch()


def cut(case):
    (case.given / "sound.deblurred.bmp").write_bytes(b"BM")


def reach_out(case):
    (case.place / "outside" / "photo.png").unlink()


CUT = "error: {given}/cut.png: is cut short"


@pytest.mark.parametrize(
    ("deed", "status", "err", "found"),
    [
        (None, 1, CUT, None),
        (change, 1, CUT, "changed"),
        (touch, 1, CUT, "changed"),
        (leave, 1, CUT, "left behind"),
        (cut, 1, CUT, "not whole"),
        (reach_out, 1, CUT, "changed"),
        (None, 0, CUT, "status 0 with 1 errors"),
        (None, 1, "", "status 1 with 0 errors"),
        (None, 0, "", "not told"),
        (None, 2, CUT, "ended with 2"),
        (None, -11, CUT, "ended with -11"),
        (None, 1, CUT + "\nTraceback (most recent call last):", "Traceback"),
        (None, 1, CUT + "\nerror: something is wrong", "names no file"),
        (None, 1, CUT + "\nerror: {given}/sound.bmp: is wrong", "sound, but"),
    ],
)
def test_the_checks_find_what_is_wrong(fuzz, case, deed, status, err, found):
    _, runs, checks = fuzz
    before = checks.snapshot(case.place)
    (case.given / "sound.deblurred.bmp").write_bytes((case.given / "sound.bmp").read_bytes())
    if deed:
        deed(case)
    end = runs.End(status, "", err.format(given=case.given))
    problems = checks.problems(case, [end], before, checks.snapshot(case.place))
    if found is None:
        assert problems == []
    else:
        assert any(found in problem for problem in problems)


def test_a_sound_file_without_a_result_is_found(fuzz, case):
    _, runs, checks = fuzz
    before = checks.snapshot(case.place)
    end = runs.End(1, "", CUT.format(given=case.given))
    (problem,) = checks.problems(case, [end], before, before)
    assert problem.startswith("no result and not told: ")
