import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.own_convolutions

ROOT = Path(__file__).parents[2]


def run(script, *arguments):
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "images"),
    [
        ("atrous_net_small", "1x32x64"),  # two devices divide the columns
        ("carlo_net_small", "2x32x24"),
        ("kaist_net_small", "1x32x64"),
    ],
)
def test_every_variant_computes_the_same(network, images, tmp_path):
    pytest.importorskip("torch")
    output = tmp_path / "speed"
    cases = [f"{network}:training:1x24x32", f"{network}:inference:{images}"]
    result = run("speed.py", "--cases", *cases, "--rounds", 1, "--output", output)
    assert result.returncode == 0, result.stderr
    report = json.loads(output.with_suffix(".json").read_text())
    assert len(report["rows"]) == 12
    for row in report["rows"]:
        if row["variant"] == "jaxdeblur sharded" and "needs several" in row.get("failure", ""):
            continue  # one image of training, or one core, or many
        # torch.compile needs a C++ compiler, which a machine may lack; nothing may differ.
        if row["variant"] != "PyTorch compiled":
            assert "failure" not in row, row
        assert "differs" not in row.get("failure", "")
    assert output.with_suffix(".md").read_text().count(f"| {cases[0]} |") == 6


@pytest.mark.slow
def test_without_pytorch_the_others_are_timed(tmp_path):
    output = tmp_path / "speed"
    case = "atrous_net_small:inference:1x16x16"
    variants = ["jaxdeblur", "plain Flax"]
    options = ["--rounds", 2, "--variants", *variants, "--output", output]
    result = run("speed.py", "--cases", case, *options)
    assert result.returncode == 0, result.stderr
    rows = json.loads(output.with_suffix(".json").read_text())["rows"]
    assert [row["variant"] for row in rows] == variants
    for row in rows:
        assert len(row["all_milliseconds"]) >= 6  # three times a round at least
        assert row["time_to_best_pytorch"] is None
        rate = row["gflop_per_second"] / row["peak_gflop_per_second"]
        assert row["share_of_peak"] == pytest.approx(rate)


class FakeWorker:
    """Answers a number of calls, then ends."""

    def __init__(self, calls):
        self._calls = calls

    def ask(self, request):
        if request == "peak":
            return 1e9
        self._calls -= 1
        if self._calls < 0:
            raise RuntimeError("its process ended")
        return [0.5]

    def stop(self):
        pass


def test_a_variant_whose_process_ends_is_left_out(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    speed = importlib.import_module("speed")
    workers = {"jaxdeblur": FakeWorker(1), "PyTorch": FakeWorker(3)}
    results = speed.Results(
        firsts={name: {"first_seconds": 1.5} for name in workers},
        memory=dict.fromkeys(workers, 1e6),
    )
    speed.time_rounds(workers, 3, results)
    assert list(workers) == ["PyTorch"]
    assert results.failures == {"jaxdeblur": "its process ended"}
    case = speed.parse_case("atrous_net:training:1x8x8")
    ours, theirs = speed.summarise(case, ["jaxdeblur", "PyTorch"], 10**9, results)
    assert ours["failure"] == "its process ended"
    assert theirs["all_milliseconds"] == [500] * 3
    assert (theirs["time_to_best_pytorch"], theirs["share_of_peak"]) == (1, 2)


def test_a_variant_that_differs_is_left_out(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    speed = importlib.import_module("speed")
    case = speed.parse_case("atrous_net:training:1x8x8")
    names = ["PyTorch", "jaxdeblur", "PyTorch channels_last"]
    losses = dict(zip(names, (0.25, 0.2, 0.2001), strict=True))
    results = speed.Results(
        firsts={name: {"first_seconds": 1, "result": losses[name]} for name in names},
        seconds=dict(zip(names, ([0.1], [0.3], [0.2]), strict=True)),
        memory=dict.fromkeys(names, 1e6),
        peak=1e9,
    )
    results.failures = speed.check(case, results.firsts)
    wrong, ours, _ = speed.summarise(case, names, 10**9, results)
    assert wrong["failure"] == "differs by 2.5e-01"
    assert ours["time_to_best_pytorch"] == pytest.approx(1.5)


@pytest.mark.parametrize(("seconds", "counted"), [(0.125, 4), (5, 3), (25, 2), (40, 1), (90, 1)])
def test_long_calls_are_timed_less_often(seconds, counted, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    runners = importlib.import_module("runners")
    clock = [0.0]
    monkeypatch.setattr(runners.time, "perf_counter", lambda: clock[0])

    def call():
        clock[0] += seconds

    times = runners._successive_seconds(call)
    assert times == pytest.approx([seconds] * counted)


@pytest.mark.slow
def test_growth_is_measured_and_drawn(tmp_path):
    sizes = ["--megapixels", 0.001, 0.004, "--batches", 1, "--rounds", 1]
    result = run("scaling.py", *sizes, "--output", tmp_path / "scaling")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    assert [(row["work"], row["megapixels"]) for row in rows] == [
        ("inference", 32**2 / 1e6),
        ("inference", 64**2 / 1e6),
        ("training", 128**2 / 1e6),
    ]
    assert all(row["seconds"] > 0 for row in rows)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


@pytest.mark.slow
def test_operations_make_up_the_call():
    result = run("operations.py", "atrous_net_small:training:8x32x32", "--top", 100)
    assert result.returncode == 0, result.stderr
    _, _, *rows, last = [line.split("|")[1:-1] for line in result.stdout.splitlines()]
    milliseconds = {(layer.strip(), kind.strip()): float(ms) for layer, kind, ms, _ in rows}
    for key in (
        ("block_*/merge", "products"),
        ("block_*/merge, gradient", "products"),
        ("block_*/dilated_*", "sums and copies"),
    ):
        assert milliseconds[key] > 0
    sums = [milliseconds.pop(("all layers", kind)) for kind in ("products", "sums and copies")]
    total = sum(milliseconds.values())
    assert sum(sums) == pytest.approx(total, rel=0.02)
    assert float(last[2]) > 0  # the call's own time, which a busy machine stretches


def test_the_loader_is_timed():
    result = run("loader.py", "--config", "configs/quickstart.py", "--samples", 160)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("skimage, patches of 32: ")


@pytest.mark.slow
def test_memory_is_measured_with_and_without_keeping_it():
    result = run("memory.py", "--calls", 3)
    assert result.returncode == 0, result.stderr
    default, kept = (line.split("|")[1:-1] for line in result.stdout.splitlines()[2:])
    for row in (default, kept):
        faults, first, last = (float(cell.replace(",", "")) for cell in row[1:])
        assert faults >= 0
        assert 144 < first <= last  # the temporary array is held


@pytest.mark.slow
def test_frames_of_a_store_are_timed_against_png_files(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    sizes = ["--clips", 1, "--frames", 3, "--samples", 43, "--folder-samples", 20]
    result = run("frames.py", "--images", tmp_path, *sizes)
    assert result.returncode == 0, result.stderr
    first, _, _, *rows = result.stdout.splitlines()
    assert first.startswith("6 frames of 1280x720, stored in ")
    cells = [line.split("|")[1:-1] for line in rows]
    assert [row[0].strip() for row in cells] == ["folder", "store", "ratio"]
    folder, store = ([float(cell) for cell in row[1:]] for row in cells[:2])
    assert (folder[1], store[1]) == (20, 40)  # whole batches in each turn
    for _, _, megabytes, before, after in (folder, store):
        assert 1 < megabytes < 1.1 * 6 * 1280 * 720 * 3 / 1e6
        assert 0 < before <= after < 2 * before
    assert float(cells[2][1]) == pytest.approx(store[0] / folder[0], rel=0.01)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("speed.py --cases atrous:training:1x8x8", "did you mean 'atrous_net'"),
        ("speed.py --cases atrous_net:train:1x8x8", "a case is such as"),
        ("speed.py --variants pytorch", "did you mean 'PyTorch'"),
        ("speed.py --rounds 0", "--rounds 0 must be at least 1"),
        ("speed.py --output nowhere/speed", "nowhere"),
        ("scaling.py --output nowhere/speed", "nowhere"),
        ("scaling.py --output scaling --batches 0", "--batches at least 1"),
        ("operations.py atrous:training:1x8x8", "did you mean 'atrous_net'"),
        ("operations.py atrous_net", "a case is such as"),
        ("loader.py --config configs/quickstart.py --samples 8", "--samples=8"),
        ("loader.py --config configs/quickstart.py --config.batchsize=8", "'batch_size'"),
        ("frames.py --folder-samples 19", "--folder-samples 19 must be at least 20"),
        ("frames.py --images nowhere", "--images 'nowhere' holds no images"),
    ],
)
def test_wrong_arguments_are_one_line(command, message, run_script):
    script, *arguments = command.split()
    result = run_script(f"benchmarks/{script}", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_tiles_are_timed_against_none(small_weights):
    options = ["--model", small_weights, "--tile", 64, "--rounds", 1, "--whole", 0.1]
    result = run("tiling.py", "--sizes", "120x90", "400x300", *options)
    assert result.returncode == 0, result.stderr
    small, large = (line.split("|")[1:-1] for line in result.stdout.splitlines()[2:])
    assert [float(cell) > 0 for cell in small[1:]] == [True] * 5
    assert float(small[5]) == pytest.approx(float(small[1]) / float(small[3]), rel=0.5)
    assert large[0].strip() == "400x300"
    assert large[3].strip() == ""  # more than 0.1 megapixels
    refused = run("tiling.py", "--model", small_weights, "--sizes", "big")
    assert refused.returncode == 2
    assert refused.stderr == "error: --sizes 'big'; a size is such as 1280x720\n"
