import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def speed(*arguments):
    command = [sys.executable, ROOT / "benchmarks" / "speed.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["atrous_net_small", "carlo_net", "kaist_net"])
def test_every_variant_computes_the_same(network, tmp_path):
    pytest.importorskip("torch")
    output = tmp_path / "speed"
    cases = [f"{network}:training:1x24x32", f"{network}:inference:2x32x24"]
    result = speed("--cases", *cases, "--rounds", 1, "--output", output)
    assert result.returncode == 0, result.stderr
    report = json.loads(output.with_suffix(".json").read_text())
    assert len(report["rows"]) == 10
    for row in report["rows"]:
        # torch.compile needs a C++ compiler, which a machine may lack; nothing may differ.
        if row["variant"] != "PyTorch compiled":
            assert "failure" not in row, row
        assert "differs" not in row.get("failure", "")
    assert output.with_suffix(".md").read_text().count(f"| {cases[0]} |") == 5


@pytest.mark.slow
def test_without_pytorch_the_others_are_timed(tmp_path):
    output = tmp_path / "speed"
    case = "atrous_net_small:inference:1x16x16"
    variants = ["jaxdeblur", "plain Flax"]
    result = speed("--cases", case, "--rounds", 2, "--variants", *variants, "--output", output)
    assert result.returncode == 0, result.stderr
    rows = json.loads(output.with_suffix(".json").read_text())["rows"]
    assert [row["variant"] for row in rows] == variants
    for row in rows:
        assert len(row["all_milliseconds"]) == 2
        assert row["time_to_best_pytorch"] is None
        rate = row["gflop_per_second"] / row["peak_gflop_per_second"]
        assert row["share_of_peak"] == pytest.approx(rate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "atrous:training:1x8x8"], "did you mean 'atrous_net'"),
        (["--cases", "atrous_net:train:1x8x8"], "a case is such as"),
        (["--variants", "pytorch"], "did you mean 'PyTorch'"),
        (["--rounds", "0"], "--rounds 0 must be at least 1"),
        (["--output", "nowhere/speed"], "nowhere"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message):
    result = speed(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
