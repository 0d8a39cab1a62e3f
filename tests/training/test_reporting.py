import json

import numpy as np
import pytest
from PIL import Image

from jaxdeblur.training import reporting
from jaxdeblur.workdir import log


def write_lines(workdir, *lines):
    (workdir / "metrics.jsonl").write_text("".join(lines))


def test_the_validation_is_found_by_step_and_the_latest_counts(tmp_path):
    with reporting.RunLog(tmp_path, 0) as run_log:
        run_log.scalars(2, {"loss": 0.5, "psnr": 11.0})
        run_log.scalars(2, {"eval/psnr": 30.0, "eval/ssim": 0.9})
        run_log.scalars(4, {"eval/psnr": float("inf")})
        run_log.scalars(2, {"eval/psnr": 31.0})
    assert log.validation_psnr(tmp_path) == {2: 31.0, 4: np.inf}


@pytest.mark.parametrize("first_step", [0, 2, 3, 9])
def test_a_log_goes_on_after_the_step_it_is_told(tmp_path, first_step):
    lines = [json.dumps({"step": step, "loss": step / 7}) + "\n" for step in range(1, 6)]
    write_lines(tmp_path, *lines, '{"step": 6, "lo')
    with reporting.RunLog(tmp_path, first_step) as run_log:
        run_log.scalars(first_step + 1, {"loss": 0.125, "samples": 2**32 - 1})
    added = {"step": first_step + 1, "loss": 0.125, "samples": 2**32 - 1}
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == "".join([*lines[:first_step], json.dumps(added) + "\n"])


def test_pictures_are_named_by_their_step(tmp_path):
    sheet = Image.fromarray(np.arange(27, dtype=np.uint8).reshape(3, 3, 3))
    with reporting.RunLog(tmp_path, 0) as run_log:
        path = run_log.picture(12, sheet)
    assert path == tmp_path / "pictures" / "00000012.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(sheet))
