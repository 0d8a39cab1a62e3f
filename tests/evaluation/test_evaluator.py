import csv
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from jaxdeblur import convert, evaluation, weights
from jaxdeblur.configs import atrous_cifar, atrous_reds, quickstart
from jaxdeblur.data import photos
from jaxdeblur.data.blur import stratified_sigmas
from jaxdeblur.data.clips.frames import Clip
from jaxdeblur.data.clips.source import ClipSource
from jaxdeblur.data.patches import SharpImages
from jaxdeblur.errors import InputError
from jaxdeblur.evaluation import evaluator
from jaxdeblur.evaluation.results import Result
from jaxdeblur.models import AtrousNet


def config_of_three_images(**overrides):
    config = quickstart.get_config()
    config.eval_patch_size = 64
    config.eval_batch_size = 3  # the 8 images end with a batch of 2
    config.update(overrides)
    return config


def test_the_blurred_row_is_what_opencv_and_scikit_image_give(tmp_path, reference_ssim):
    config = config_of_three_images()
    summary = evaluation.run(config, output=tmp_path / "out")
    source = photos.skimage_photos("test")
    sigmas = stratified_sigmas(2, 4, (1.0, 2.0), config.seed + 1)
    psnr, ssim, mse = [], [], []
    for row in sigmas:
        for i, sigma in enumerate(row):
            top, left = ((n - 64) // 2 for n in source[i].shape[:2])
            sharp = source[i][top : top + 64, left : left + 64]
            blurred = cv2.GaussianBlur(sharp, (0, 0), float(sigma))
            psnr.append(peak_signal_noise_ratio(sharp, blurred))
            mse.append(np.mean((sharp / 255 - blurred / 255) ** 2))
            ssim.append(reference_ssim(sharp / 255, blurred / 255))
    assert summary["num_images"] == 8
    assert summary["model"] is None
    np.testing.assert_allclose(summary["blurred"]["psnr"], np.mean(psnr), rtol=1e-4)
    np.testing.assert_allclose(summary["blurred"]["mse"], np.mean(mse), rtol=1e-4)
    np.testing.assert_allclose(summary["blurred"]["ssim"], np.mean(ssim), rtol=1e-4)

    assert json.loads((tmp_path / "out" / "results.json").read_text()) == summary
    with (tmp_path / "out" / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["chelsea.png", "coffee.png"] * 4
    np.testing.assert_allclose([float(r["blurred_psnr"]) for r in rows], psnr, rtol=1e-4)
    np.testing.assert_allclose([float(r["sigma"]) for r in rows], sigmas.ravel(), rtol=1e-5)
    assert (tmp_path / "out" / "images.png").stat().st_size > 0


def test_a_network_that_changes_nothing_scores_as_the_blurred_images(tmp_path):
    module = AtrousNet(num_channels=4, num_blocks=1)
    params = zero_params(module)
    weights.save(tmp_path / "zero.safetensors", weights.Deblurrer(module, params, {"channels": 3}))
    summary = evaluation.run(config_of_three_images(), source=tmp_path / "zero.safetensors")
    for name in ("psnr", "ssim", "mse"):
        np.testing.assert_allclose(summary[name], summary["blurred"][name], rtol=1e-5)
    assert summary["model"] == summary["card"]["model"] == "atrous_net"
    assert summary["params"] == sum(np.prod(x.shape) for x in jax.tree.leaves(params))


def zero_params(module):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["params"])


def test_images_that_the_blur_left_unchanged_are_counted_and_left_out():
    rows = {
        "index": np.arange(4),
        "sigma": np.zeros(4),
        "blurred_psnr": np.array([20.0, np.inf, 30.0, np.inf]),
        "blurred_mse": np.array([0.01, 0.0, 0.001, 0.0]),
    }
    result = Result(rows, [], {})
    assert result.unchanged() == 0.5
    assert result.means()["blurred_psnr"] == 25.0
    assert result.means()["blurred_mse"] == pytest.approx(0.011 / 4)


def test_the_published_blur_of_real_cifar_images(shared_data):
    config = atrous_cifar.get_config()
    config.data_dir = str(shared_data / "tfds")
    config.eval_repeats = 4
    summary = evaluation.run(config)
    # Measured independently, with OpenCV, on the same 500 images.
    assert summary["num_images"] == 2000
    assert summary["blurred"]["psnr"] == pytest.approx(24.77, abs=0.1)
    assert summary["blurred"]["mse"] == pytest.approx(6.27e-3, abs=0.08e-3)
    assert summary["unchanged"] == pytest.approx(0.095, abs=0.002)


def test_weights_of_the_original_programs_are_evaluated(shared_data, tmp_path):
    parity = shared_data / "parity"
    module, params = convert.from_keras(
        parity / "carlo_net.model.json", parity / "carlo_net.weights.h5"
    )
    path = tmp_path / "carlo.safetensors"
    weights.save(path, weights.Deblurrer(module, params, {"channels": 3}))
    summary = evaluation.run(config_of_three_images(), source=path)
    # Ten 3x3 convolutions and ten transposed ones, 16 filters, 3 channels at both ends.
    assert summary["params"] == (27 * 16 + 16) + 18 * (9 * 16 * 16 + 16) + (27 * 16 + 3)
    assert summary["model"] == "carlo_net"


def test_a_video_network_is_refused_on_images(shared_data, tmp_path):
    parity = shared_data / "parity"
    module, params = convert.from_keras(
        parity / "atrous_net_video.model.json", parity / "atrous_net_video.weights.h5"
    )
    path = tmp_path / "video.safetensors"
    weights.save(path, weights.Deblurrer(module, params, {"channels": 9}))
    with pytest.raises(InputError, match="9 channels"):
        evaluation.run(config_of_three_images(), source=path)


def test_no_such_weights():
    with pytest.raises(InputError, match="nowhere"):
        evaluation.run(config_of_three_images(), source="nowhere")


def test_an_effort_reaches_the_network(monkeypatch):
    asked = []

    def load(source, **options):
        asked.append((source, options))
        raise InputError("loaded")

    monkeypatch.setattr(weights, "load", load)
    for effort in (0, 2):
        with pytest.raises(InputError, match="loaded"):
            evaluation.run(config_of_three_images(effort=effort), source="net")
    assert asked == [("net", {"effort": None}), ("net", {"effort": 2})]


def test_an_effort_of_a_network_without_stages_is_refused(tmp_path):
    module = AtrousNet(num_channels=4, num_blocks=1)
    path = tmp_path / "zero.safetensors"
    weights.save(path, weights.Deblurrer(module, zero_params(module), {"channels": 3}))
    with pytest.raises(InputError, match="effort = 2 is for networks in stages"):
        evaluation.run(config_of_three_images(effort=2), source=path)


@pytest.mark.parametrize(("tile", "option"), [("auto", "auto"), ("off", "off"), ("48", 48)])
def test_whole_frames_are_restored_in_the_tiles_that_were_asked_for(monkeypatch, tile, option):
    seen = []

    def restored(module, variables, blurred, options, limits):
        seen.append((blurred.shape, options.tile))
        return blurred

    monkeypatch.setattr(evaluator.restore, "restore", restored)
    frame = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    clip = Clip("val", "000", ("0",), (16, 20))
    source = ClipSource("noise", [clip], lambda parts: [frame for _ in parts], 1)
    config = atrous_reds.get_config()
    config.eval_patch_size, config.tile = 0, tile
    result = evaluation.Evaluator(config, source, AtrousNet(), 3)({})
    assert seen == [((1, 16, 20, 3), option)]
    np.testing.assert_array_equal(result.rows["mse"], [0])


# Whole frames, divided among processes.


@given(st.data())
def test_every_frame_is_measured_once_and_the_shown_ones_by_process_0(data):
    total = data.draw(st.integers(1, 60), "total")
    shown = data.draw(st.sets(st.integers(0, total - 1), max_size=12), "shown")
    processes = data.draw(st.integers(1, 12), "processes")
    parts = evaluator.frame_parts(total, shown, processes)
    assert len(parts) == processes
    assert sorted(i for part in parts for i in part) == list(range(total))
    assert all(part == sorted(part) for part in parts)
    assert shown <= set(parts[0])
    first, *others = map(len, parts)
    assert first == max(len(shown), -(-total // processes))
    if others:
        assert max(others) - min(others) <= 1
        assert max(others) <= first


@pytest.mark.parametrize(
    ("total", "shown"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (9, [0, 1, 2, 3, 4, 6, 7, 8])]
)
def test_few_frames_are_shown_once_each_and_many_evenly_spread(total, shown):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (total, 2, 16, 20, 3), np.uint8)
    clip = Clip("val", "000", tuple(str(i) for i in range(total)), (16, 20))

    def read(parts):
        both = (frames[part.frame, int(part.kind == "blurred")] for part in parts)
        return [frame[part.window.slices] for frame, part in zip(both, parts, strict=True)]

    config = atrous_reds.get_config()
    config.eval_patch_size = 0
    evaluator = evaluation.Evaluator(config, ClipSource("noise", [clip], read), None, 3)
    counts = []
    result = evaluator({}, progress=counts.append)
    np.testing.assert_array_equal(result.rows["index"], np.arange(total))
    expected = [peak_signal_noise_ratio(sharp, blurred) for sharp, blurred in frames]
    np.testing.assert_allclose(result.rows["blurred_psnr"], expected, rtol=1e-5)
    assert counts == list(range(1, total + 1))
    assert result.shown == shown
    for i, image in zip(result.shown, result.images["sharp"], strict=True):
        np.testing.assert_array_equal(np.round(image * 255), frames[i][0])
    assert result.contact_sheet().width > 0


@pytest.mark.parametrize("total", [1, 2, 3, 5])
def test_few_images_are_shown_once_each(total):
    class Photos(SharpImages):
        name = title = "noise"

        def __init__(self):
            self.labels = [str(i) for i in range(total)]

        def __len__(self):
            return total

        def __getitem__(self, index):
            return np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)

        def smallest_size(self):
            return 64, 64, "noise"

    config = config_of_three_images(eval_repeats=1)
    result = evaluation.Evaluator(config, Photos(), None, 3)({})
    assert result.shown == result.rows["index"].tolist() == list(range(total))
