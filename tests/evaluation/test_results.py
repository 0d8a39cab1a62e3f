import csv
import datetime
import json

import numpy as np
import pytest
from PIL import Image

from jaxdeblur import create_model, evaluation, metrics
from jaxdeblur.configs import atrous_cifar, atrous_photos, atrous_reds, maxim_gopro, quickstart
from jaxdeblur.data import cifar, photos
from jaxdeblur.data.clips.source import ClipSource
from jaxdeblur.errors import InputError
from jaxdeblur.evaluation import evaluator, results, tables
from jaxdeblur.models.cost import num_parameters

SUMMARY = {"model": "atrous_net", "params": 1234}


def cifar_test():
    """CIFAR-10 as a source, without its images."""
    source = object.__new__(cifar.Cifar10)
    source.name = source.title = "CIFAR-10 test"
    return source


def result_of_two_images_twice():
    """Sigma from the halves of (0, 3); the first image's first blur left it unchanged."""
    rows = {
        "index": np.array([0, 1, 0, 1]),
        "sigma": np.array([0.1, 1.4, 1.6, 2.9]),
        "blurred_psnr": np.array([np.inf, 30.0, 26.0, 20.0]),
        "blurred_ssim": np.array([1.0, 0.9, 0.8, 0.6]),
        "blurred_mse": np.array([0.0, 0.001, 0.003, 0.01]),
        "psnr": np.array([50.0, 36.0, 32.0, 24.0]),
        "ssim": np.array([0.99, 0.95, 0.9, 0.7]),
        "mse": np.array([0.00001, 0.0003, 0.0006, 0.004]),
    }
    return results.Result(rows, [], {})


def test_the_rows_are_the_means_of_the_whole_and_of_each_part():
    config = atrous_cifar.get_config()
    config.eval_repeats = 2
    result = result_of_two_images_twice()
    rows = results.table_rows(SUMMARY, result, config, cifar_test(), "atrous-cifar")
    whole, low, high = rows
    assert [row.part for row in rows] == [None, 1, 2]
    assert [(row.min_sigma, row.max_sigma) for row in rows] == [(0, 3), (0, 1.5), (1.5, 3)]
    assert [row.num_images for row in rows] == [4, 2, 2]
    assert [row.unchanged for row in rows] == [0.25, 0.5, 0]
    assert [row.psnr for row in rows] == pytest.approx([35.5, 43, 28])
    assert [row.ssim for row in rows] == pytest.approx([0.885, 0.97, 0.8])
    assert [row.mse for row in rows] == pytest.approx([0.0012275, 0.000155, 0.0023])
    # The unchanged image, whose PSNR was infinite, does not count.
    assert [row.least_gain for row in rows] == pytest.approx([4, 6, 4])
    assert [row.blurred_psnr for row in rows] == pytest.approx([76 / 3, 30, 23])
    assert [row.blurred_ssim for row in rows] == pytest.approx([0.825, 0.95, 0.7])
    assert [row.blurred_mse for row in rows] == pytest.approx([0.0035, 0.0005, 0.0065])
    assert whole.evaluation == low.evaluation == high.evaluation
    assert (whole.weights, whole.model, whole.params) == ("atrous-cifar", "atrous_net", 1234)
    assert whole.data == "CIFAR-10 test"
    assert whole.protocol.startswith("32x32 pixels, each 2 times")
    assert whole.protocol.endswith(metrics.PROTOCOL)
    assert whole.date == datetime.date.today()


def test_one_blur_of_each_image_and_clips_have_no_parts():
    result = result_of_two_images_twice()
    config = atrous_cifar.get_config()
    (row,) = results.table_rows(SUMMARY, result, config, cifar_test(), None)
    assert (row.part, row.min_sigma, row.max_sigma, row.weights) == (None, 0, 3, "")

    columns = {name: values for name, values in result.rows.items() if name != "sigma"}
    clips = results.Result(columns, [], {})
    config = atrous_reds.get_config()
    config.eval_repeats = 2
    clips_of_reds = ClipSource("REDS val (blur)", [], lambda parts: [])
    (row,) = results.table_rows(SUMMARY, clips, config, clips_of_reds, None)
    assert (row.part, row.min_sigma, row.max_sigma) == (None, None, None)
    assert (row.data, row.num_images) == ("REDS val (blur)", 4)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("atrous-photo", "atrous-photo"),
        ("/home/ada/nets/best.safetensors", "atrous_net (best.safetensors)"),
        ("~/runs/small/", "atrous_net (small)"),
        ("s3://bucket/runs/small", "atrous_net (small)"),
        ("/home/ada/runs/small/checkpoints/800", "atrous_net (small/checkpoints/800)"),
    ],
)
def test_weights_are_not_named_by_where_they_lie(source, name):
    config = atrous_cifar.get_config()
    (row,) = results.table_rows(SUMMARY, result_of_two_images_twice(), config, cifar_test(), source)
    assert row.weights == name


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["train/1.png", "val/2.png"], "photos val"),
        (["train/1.png", "val/2.png", "test/3.png"], "photos test"),
        ([f"{i:02}.png" for i in range(10)], "photos (val: every tenth file is held out)"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_photographs_are_not_named_by_where_they_lie(tmp_path, monkeypatch, files, name, inside):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16)).save(tmp_path / file)
    monkeypatch.chdir(tmp_path)
    config = atrous_photos.get_config()
    config.data_dir = "." if inside else str(tmp_path)
    source = photos.photo_folder(config.data_dir, "test")
    (row,) = results.table_rows(SUMMARY, result_of_two_images_twice(), config, source, None)
    assert row.data == name


def config_of_small_patches(**overrides):
    config = quickstart.get_config()
    config.eval_patch_size = 32
    config.update(overrides)
    return config


def test_an_evaluation_is_added_to_a_table_once(tmp_path):
    path = tmp_path / "new" / "table.csv"
    kept = []
    for _ in range(2):
        summary = evaluation.run(config_of_small_patches(), table=path, done=kept.append)
    rows = tables.read(path)
    assert [row.part for row in rows] == [None, 1, 2, 3, 4]
    assert rows[0].data == "scikit-image test photographs"
    assert (rows[0].weights, rows[0].psnr) == ("", None)
    assert rows[0].blurred_psnr == pytest.approx(summary["blurred"]["psnr"], rel=1e-5)
    mean = np.mean([row.blurred_mse for row in rows[1:]])
    assert mean == pytest.approx(rows[0].blurred_mse, rel=1e-5)
    assert len(kept[0].rows["index"]) == 8

    evaluation.run(config_of_small_patches(seed=1), table=path)
    assert tables.read(path)[:5] == rows
    assert len(tables.read(path)) == 10


def test_a_wrong_table_or_folder_is_told_before_the_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, "Evaluator", None)  # not to be called
    foreign = tmp_path / "photo.png"
    foreign.write_bytes(b"\x89PNG")
    for destination in (
        {"table": foreign, "output": tmp_path / "out"},
        {"table": foreign / "table.csv"},
        {"table": tmp_path},
        {"output": foreign},
        {"output": foreign / "out"},
    ):
        with pytest.raises(InputError, match=str(tmp_path)):
            evaluation.run(config_of_small_patches(), **destination)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]
    assert foreign.read_bytes() == b"\x89PNG"


def test_results_without_blur_are_strict_json(tmp_path):
    config = config_of_small_patches(min_sigma=0.0, max_sigma=0.0)
    evaluation.run(config, output=tmp_path)

    def refused(constant):
        raise AssertionError(constant)

    summary = json.loads((tmp_path / "results.json").read_text(), parse_constant=refused)
    assert summary["blurred"] == {"psnr": None, "ssim": 1.0, "mse": 0.0}
    assert summary["unchanged"] == 1


@pytest.mark.parametrize("dataset", results.PUBLISHED)
def test_the_published_numbers_of_parameters_are_those_of_the_networks(dataset):
    for title, figures in results.PUBLISHED[dataset].items():
        if "params" not in figures:
            continue
        name, *details = title.split(", ")  # such as "nafnet, width 64"
        widths = [detail.removeprefix("width ") for detail in details if "width" in detail]
        fields = {"width": int(widths[0])} if widths else {}
        if (name, dataset) == ("atrous_net", "reds"):
            fields["num_blocks"] = 10
        channels = 9 if dataset == "reds" and name in ("atrous_net", "kaist_net") else 3
        assert num_parameters(create_model(name, **fields), channels) == figures["params"]


def test_published_figures_stand_beside_those_of_the_same_network(capsys):
    summary = {
        "model": "nafnet",
        "params": 17_111_907,
        "protocol": "of a test",
        "unchanged": 0,
        "num_images": 3,
        "blurred": {"psnr": 25.0, "ssim": 0.8, "mse": 0.003},
        "psnr": 32.5,
        "ssim": 0.95,
        "mse": 0.0006,
    }
    results.print_table(summary, "gopro")
    lines = capsys.readouterr().out.splitlines()
    (ours,) = (line.split() for line in lines if "17,111,907 parameters" in line)
    assert {"32.50", "0.9500", "0.60"} <= set(ours)
    published = [line for line in lines if ", published" in line]
    assert ["width 32" in line for line in published] == [True, False]
    for line, psnr, ssim in zip(published, ("32.87", "33.71"), ("0.9606", "0.9668"), strict=True):
        assert line.strip("│ ").startswith("nafnet, width")
        assert {psnr, ssim} <= set(line.split())  # and no MSE, which is not published


@pytest.mark.parametrize(
    ("changes", "weights_name", "tiles"),
    [
        ({}, "maxim-gopro", ""),
        ({"effort": 2}, "maxim-gopro, effort 2", ""),
        ({"tile": "off"}, "maxim-gopro", ", tile off"),
        ({"tile": "256"}, "maxim-gopro", ", tile 256"),
    ],
)
def test_an_effort_and_tiles_are_told_of_an_evaluation(changes, weights_name, tiles):
    config = maxim_gopro.get_config()
    config.update(changes)
    columns = result_of_two_images_twice().rows
    clips = results.Result({k: v for k, v in columns.items() if k != "sigma"}, [], {})
    source = ClipSource("GoPro test (blur)", [], lambda parts: [], 1)
    (row,) = results.table_rows(SUMMARY, clips, config, source, "maxim-gopro")
    assert row.weights == weights_name
    assert row.protocol == f"whole frames{tiles}; {metrics.PROTOCOL}"


def odd_result(num_images):
    rows = {"index": np.arange(num_images)}
    for name in ("blurred_psnr", "psnr"):
        rows[name] = np.linspace(20, 30, num_images)
    for name in ("blurred_ssim", "ssim", "blurred_mse", "mse"):
        rows[name] = np.linspace(0.1, 0.9, num_images)
    pictures = [np.zeros((16, 16, 3), np.float32)]
    return results.Result(rows, [0], dict.fromkeys(("blurred", "restored", "sharp"), pictures))


ODD_NAMES = [
    "a.png", "a.png", "a.jpg", "\udcff\udcfe.png", "x" * 255, "a\nb.png", 'q"u,o.png',
    "[/red].png", "=1+1.png", "\0.png", "",
]  # fmt: skip


def test_every_image_has_its_row_whatever_its_name(tmp_path):
    result = odd_result(len(ODD_NAMES))
    summary = {"psnr": float("inf"), "protocol": "\udcff"}
    results.write(tmp_path, summary, result, ODD_NAMES)
    with (tmp_path / "per_image.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[0] == "image"
    told = [name.encode(errors="backslashreplace").decode() for name in ODD_NAMES]
    assert [row[0] for row in rows] == told
    assert [float(row[2]) for row in rows] == pytest.approx(result.rows["psnr"], rel=1e-5)
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "psnr": None,
        "protocol": "\udcff",
    }
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["images.png", "per_image.csv", "results.json"]


@pytest.mark.parametrize("name", ["results.json", "per_image.csv", "images.png"])
def test_a_folder_in_place_of_a_file_is_told(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: is not a file"):
        results.write(tmp_path, {}, odd_result(2), ["a", "b"])


@pytest.mark.parametrize("protocol", ["photos in /data/[/b]/[red]x", "photos in /data/\udcff"])
def test_a_protocol_is_shown_as_it_is(capsys, protocol):
    figures = {"psnr": 30.0, "ssim": 0.9, "mse": 0.001}
    summary = {
        "blurred": figures, "model": None, "protocol": protocol, "num_images": 1, "unchanged": 0.0,
    }  # fmt: skip
    results.print_table(summary, "photos")
    shown = "".join(capsys.readouterr().out.split())
    assert "".join(protocol.encode(errors="backslashreplace").decode().split()) in shown


@pytest.mark.parametrize("place", ["~nosuchuser/x", "x" * 300, "a/" * 2100])
def test_places_that_cannot_be_are_told(tmp_path, place):
    place = place if place.startswith("~") else tmp_path / place
    with pytest.raises(InputError, match="output = "):
        results.check_destinations(place, None)
    with pytest.raises(InputError, match="table = "):
        results.check_destinations(None, place)


def test_weights_of_a_name_that_is_no_text_are_the_same_again(tmp_path):
    config = atrous_cifar.get_config()
    result, source = result_of_two_images_twice(), tmp_path / "net\udcff.pth"
    for _ in range(2):
        rows = results.table_rows(SUMMARY, result, config, cifar_test(), source)
        tables.add(tmp_path / "table.csv", rows)
    (row,) = tables.read(tmp_path / "table.csv")
    assert row.weights == "atrous_net (net\\udcff.pth)"
