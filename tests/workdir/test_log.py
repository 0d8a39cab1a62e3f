import json
import math

import pytest

from jaxdeblur.errors import InputError
from jaxdeblur.workdir import log


def test_lines_that_were_cut_off_or_are_none_of_ours_are_left_out(tmp_path):
    lines = ['{"step": 1, "loss": 0.5}\n', "\n", "[1]\n", "7\n", '{"loss": 2}\n', "\x00\x00\n"]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(lines) + '{"step": 2, "loss": 0.25}\n' + '{"step": 3, "lo'
    )
    assert log.read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_a_workdir_without_a_log_has_no_lines(tmp_path):
    assert log.read_metrics(tmp_path) == []
    assert log.validation_psnr(tmp_path) == {}


FOREIGN = [
    '{"epoch": 3}',
    "[1]",
    '{"step": "x"}',
    '{"step": null, "eval/psnr": 90}',
    '{"step": true, "eval/psnr": 91}',
    '{"step": 1.5, "eval/psnr": 92}',
    '{"step": NaN, "eval/psnr": 93}',
    '{"step": -1, "eval/psnr": 94}',
    '{"step": 7, "eval/psnr": "95"}',
    '{"step": 8, "eval/psnr": [96]}',
    '{"step": 9, "eval/psnr": NaN}',
    '{"step": ' + "9" * 5000 + "}",
    "[" * 100_000,
    '{"a":' * 100_000,
    bytes(range(256)).decode("latin-1"),
]


def test_what_others_have_written_is_no_measurement(tmp_path):
    own = ['{"step": 1, "eval/psnr": 30.5}', '{"step": 3, "eval/psnr": null}']
    lines = [*FOREIGN, own[0], *FOREIGN, own[1], '{"step": 2, "eval/psnr": Infinity}', '{"step": 4']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="latin-1")
    assert log.validation_psnr(tmp_path) == {1: 30.5, 2: math.inf, 3: math.inf}


def test_a_line_is_strict_json():
    values = {"step": 3, "eval/psnr": math.inf, "loss": math.nan, "b": [-math.inf, 0.1]}

    def refuse(word):
        raise AssertionError(word)

    text = log.line(values)
    assert text.endswith("}\n")
    assert json.loads(text, parse_constant=refuse) == {
        "step": 3, "eval/psnr": None, "loss": None, "b": [None, 0.1],
    }  # fmt: skip


def test_a_log_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(InputError, match=r"metrics\.jsonl cannot be read"):
        log.read_metrics(tmp_path)
    assert log.read_metrics(tmp_path / "none") == []
