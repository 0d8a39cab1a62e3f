import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def run(script, *arguments):
    command = [sys.executable, ROOT / "tools" / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_limits_of_a_network_that_changes_nothing_are_zero(small_weights, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (300, 320, 3), np.uint8)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(photo).save(tmp_path / split / "photo.png")
    result = run("limits.py", "--model", small_weights, "--data_dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"change": 0, "overshoot": 0, "colour_shift": 0}
