"""The page docs/results.md, what it is made of, and what README repeats of it."""

import datetime
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxdeblur.convolutions import SWITCH
from jaxdeblur.evaluation import tables
from jaxdeblur.evaluation.results import Result

ROOT = Path(__file__).parents[2]
CIFAR10 = [row for row in tables.read(ROOT / "results" / "cifar10.csv") if row.part is None]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("results")


@pytest.fixture
def renderer(benchmark):
    return benchmark.results_page


def test_the_page_is_made_of_the_tables(benchmark):
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert text == benchmark.page(), "run python tools/results.py --page"
    assert all(row.weights in text for row in CIFAR10)


def test_what_the_page_links_is_there_and_its_pictures_are_small():
    page = ROOT / "docs" / "results.md"
    links = re.findall(r"\]\((?!https://)([^)]+)\)", page.read_text(encoding="utf-8"))
    files = {(page.parent / link).resolve() for link in links}
    assert [file for file in files if not file.is_file()] == []
    pictures = {file for file in files if file.suffix in (".jpg", ".png")}
    assert pictures == set((ROOT / "docs" / "results").iterdir())
    assert all(file.stat().st_size < 200_000 for file in pictures)


def test_no_table_names_a_folder_of_the_machine_that_measured():
    for path in (ROOT / "results").glob("*.csv"):
        text = path.read_text()
        assert "shared" not in text
        assert not re.search(r"(^|[\s,(\"])[~.]*/\w", text)


def test_the_figures_in_the_readme_are_those_of_the_table():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rows = {row.weights: (row.psnr, row.ssim, row.mse) for row in CIFAR10}
    found = {name: line for line in lines for name in rows if f"(`{name}`) |" in line}
    assert found.keys() == rows.keys()
    first = CIFAR10[0]
    rows["blurred"] = (first.blurred_psnr, first.blurred_ssim, first.blurred_mse)
    (found["blurred"],) = (line for line in lines if line.startswith("| blurred, here |"))
    for name, line in found.items():
        psnr, ssim, mse = rows[name]
        _, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert cells[:3] == [f"{psnr:.2f}", f"{ssim:.4f}", f"{1e3 * mse:.2f}"]


def test_the_gains_on_photographs_in_the_readme_are_those_of_the_table():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rows = sorted(tables.read(ROOT / "results" / "photos.csv"), key=lambda row: row.max_sigma)
    for title, values in (
        ("blurred, dB", [row.blurred_psnr for row in rows]),
        ("restored, dB", [row.psnr for row in rows]),
        ("the photograph that gains least, dB", [row.least_gain for row in rows]),
    ):
        (line,) = (line for line in lines if line.startswith(f"| {title} |"))
        assert line == f"| {title} | {' | '.join(f'{value:.2f}' for value in values)} |"


def test_the_gain_on_gopro_in_the_readme_is_that_of_the_table():
    rows = tables.read(ROOT / "results" / "gopro.csv")
    gains = {row.weights: f"gains {row.psnr - row.blurred_psnr:.2f} dB" for row in rows}
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"on three pairs of GoPro it {gains['atrous-photo']}, where MAXIM" in text
    assert f"where MAXIM with its official weights {gains['maxim-gopro']}" in text


@pytest.mark.slow
@pytest.mark.parametrize("expected", CIFAR10, ids=lambda row: row.weights)
def test_a_new_evaluation_of_cifar10_gives_the_table(shared_data, tmp_path, expected):
    command = [sys.executable, "eval.py", "--config=configs/atrous_cifar_small.py"]
    command += [f"--config.data_dir={shared_data / 'tfds'}", "--config.eval_repeats=8"]
    command += [f"--checkpoint={expected.weights}", f"--output={tmp_path}"]
    # As a user's: what tests are compiled with is quick to compile, and slow with many images.
    as_a_user = {key: os.environ[key] for key in os.environ.keys() - {"XLA_FLAGS", SWITCH}}
    subprocess.run(command, cwd=ROOT, env=as_a_user, check=True)
    summary = json.loads((tmp_path / "results.json").read_text())
    assert summary["num_images"] == expected.num_images
    assert summary["params"] == expected.params
    for found, prefix in ((summary, ""), (summary["blurred"], "blurred_")):
        assert found["psnr"] == pytest.approx(getattr(expected, f"{prefix}psnr"), abs=0.02)
        assert found["ssim"] == pytest.approx(getattr(expected, f"{prefix}ssim"), abs=3e-4)
        assert found["mse"] == pytest.approx(getattr(expected, f"{prefix}mse"), rel=0.01)


def row(**changes):
    values = {
        "weights": "atrous-cifar",
        "model": "atrous_net",
        "params": 792_675,
        "data": "",
        "protocol": "once; RGB",
        "part": None,
        "min_sigma": 0.0,
        "max_sigma": 3.0,
        "num_images": 1000,
        "unchanged": 0.0,
        "psnr": 33.5609,
        "ssim": 0.91766,
        "mse": 0.00164824,
        "blurred_psnr": 24.7549,
        "blurred_ssim": 0.714949,
        "blurred_mse": 0.00627577,
        "date": datetime.date(2026, 11, 24),
    }
    return tables.Row(**{**values, **changes})


CARD = "[`atrous-cifar`](../jaxdeblur/pretrained/atrous-cifar.json)"


def cells_of(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_ours_stand_below_the_published_with_the_gain(renderer):
    header, _, *lines = cells_of(renderer.comparison("reds", [row()]))
    assert header[1:5] == ["PSNR dB", "gain dB", "SSIM", "MSE 1e-3"]
    found = {line[0]: line[1:] for line in lines}
    # Published: 32.42 of 27.048 dB; UniA Team without MSE and parameters.
    atrous = ["32.42", "+5.37", "0.9009", "1.05", "24,433,539", "", ""]
    assert found["ATROUS_NET, published"] == atrous
    assert found["UniA Team, published"] == ["34.44", "+7.39", "0.9412", "", "", "", ""]
    assert found["blurred, here"] == ["24.75", "", "0.7149", "6.28", "", "1,000", "2026-11-24"]
    assert found[f"ATROUS_NET ({CARD})"] == [
        "33.56", "+8.81", "0.9177", "1.65", "792,675", "1,000", "2026-11-24",
    ]  # fmt: skip


def test_means_over_different_images_have_no_gain_and_parts_count_the_repeats(renderer):
    parts = [row(part=part, num_images=500, unchanged=0.2 * (part == 1)) for part in (1, 2)]
    header, _, *lines = cells_of(renderer.comparison("cifar10", [row(unchanged=0.1), *parts]))
    assert "gain dB" not in header
    assert lines[3][:4] == ["ATROUS_NET, published", "33.61", "0.9237", "1.50"]
    assert [line[0] for line in lines[4:]] == ["blurred, here", f"ATROUS_NET ({CARD})"]
    assert lines[-1][-2] == "500, 2 times"


def test_each_sigma_has_its_blurred_row(renderer):
    rows = [
        row(min_sigma=sigma, max_sigma=sigma, weights=weights, least_gain=sigma)
        for sigma in (1.0, 1.5)
        for weights in ("one", "two")
    ]
    _, _, *lines = cells_of(renderer.by_sigma(rows))
    assert [line[0] for line in lines] == ["1"] * 3 + ["1.5"] * 3
    assert [line[1][:12] for line in lines[:3]] == ["blurred", "ATROUS_NET (", "ATROUS_NET ("]
    assert [line[-2] for line in lines[3:]] == ["", "+1.50", "+1.50"]


def test_curves_leave_out_what_the_blur_left_unchanged(renderer):
    parts = [
        row(part=part, weights=name, min_sigma=part - 1, max_sigma=part, unchanged=part == 1)
        for name in ("one", "two")
        for part in (1, 2, 3)
    ]
    (axes,) = renderer.plot([row(), *parts]).axes
    assert [line.get_label() for line in axes.lines] == ["blurred", "one", "two"]
    for line in axes.lines:
        np.testing.assert_array_equal(line.get_xdata(), [1.5, 2.5])


def test_pictures_show_every_network_beside_the_same_image(benchmark):
    def result(shade, num_images):
        images = np.full((num_images, 300, 250, 3), shade, np.float32)
        shown = {"blurred": images, "restored": images / 2, "sharp": images}
        column = np.arange(num_images, dtype=np.float32)
        rows = {"sigma": column, "blurred_psnr": column + 20, "psnr": column + 30}
        columns = {name: list(x) for name, x in shown.items()}
        return Result(rows, list(range(num_images)), columns)

    sheet = benchmark.contact_sheet([{"one": result(1.0, 8), "two": result(0.5, 8)}])
    assert sheet.size == (4 * 196 + 4, 16 + 3 * (192 + 18))
    middles = [sheet.getpixel((4 + 196 * column + 96, 16 + 96)) for column in range(4)]
    assert middles == [(255,) * 3, (128,) * 3, (64,) * 3, (255,) * 3]
    group = {"one": result(1.0, 8), "two": result(0.5, 8)}
    assert benchmark.caption(group, 2) == "sigma 2.00, dB: blurred 22.00, one 32.00, two 32.00"
    assert benchmark.spread(8, 3) == [1, 4, 6]
    assert benchmark.spread(2, 3) == [0, 1]
