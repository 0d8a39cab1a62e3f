import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script, *arguments):
    command = [sys.executable, ROOT / "tools" / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data_dir nowhere --only cifar", "did you mean 'cifar10'"),
        ("", "give --data_dir DIR, or --page"),
        ("--data_dir nowhere", "'nowhere' has no folder 'tfds', which cifar10 needs"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message):
    result = run("results.py", *arguments.split())
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
