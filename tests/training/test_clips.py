"""Training and evaluation on clips, from a folder of frames and from a store, end to end."""

import csv
import re
import shutil
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from small_runs import assert_equal_states, metrics_lines

import jaxdeblur
from jaxdeblur import evaluation, training, weights
from jaxdeblur.configs import atrous_reds_small
from jaxdeblur.data.clips import folders as clip_folders
from jaxdeblur.data.clips import storing
from jaxdeblur.errors import InputError
from jaxdeblur.models import AtrousNet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs seen by a moving camera: two clips to train on, one of two sizes each to test."""
    root = tmp_path_factory.mktemp("clips")
    sizes = {"train/000": (40, 48), "train/001": (40, 48), "val/000": (40, 48), "val/001": (33, 50)}
    photo = data.chelsea()
    for number, (label, (height, width)) in enumerate(sizes.items()):
        split, clip = label.split("/")
        for kind in ("sharp", "blur"):
            (root / f"{split}_{kind}" / clip).mkdir(parents=True)
        for frame in range(3):
            top, left = 60 * number + 3 * frame, 100 + 2 * frame
            sharp = photo[top : top + height, left : left + width]
            blurred = cv2.GaussianBlur(sharp, (0, 0), 1.5)
            for kind, image in (("sharp", sharp), ("blur", blurred)):
                Image.fromarray(image).save(root / f"{split}_{kind}/{clip}/{frame:08}.png")
    return root


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    storing.write(clip_folders.open_folder(folder, "blur"), path, "blur")
    return path


def tiny_config(data_dir, **overrides):
    config = atrous_reds_small.get_config()
    config.model_kwargs.num_channels = 8
    config.model_kwargs.num_blocks = 1
    config.data_dir = str(data_dir)
    config.patch_size = config.eval_patch_size = 16
    config.num_steps = 4
    config.log_every_steps = config.checkpoint_every_steps = 2
    config.eval_every_steps = 4
    config.update(overrides)
    return config


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, training.train_and_evaluate(tiny_config(folder), workdir)


def test_a_network_of_video_mode_is_trained(trained):
    workdir, state = trained
    assert state.params["stem"]["kernel"].shape[2] == 9
    deblurrer = jaxdeblur.load(workdir)
    assert deblurrer.card["channels"] == 9
    last = metrics_lines(workdir)[-1]
    assert np.isfinite([last["eval/psnr"], last["eval/blurred_psnr"]]).all()


def test_a_network_of_image_mode_is_trained_on_single_frames(folder, store, tmp_path):
    config = tiny_config(folder, num_frames=1, num_steps=2, eval_every_steps=2)
    state = training.train_and_evaluate(config, tmp_path / "run")
    assert state.params["stem"]["kernel"].shape[2] == 3
    last = metrics_lines(tmp_path / "run")[-1]
    config.eval_patch_size = 16
    summary = evaluation.run(config, source=tmp_path / "run")
    assert summary["card"]["channels"] == 3
    assert summary["psnr"] == pytest.approx(last["eval/psnr"], rel=1e-5)
    assert summary["blurred"]["psnr"] == pytest.approx(last["eval/blurred_psnr"], rel=1e-5)
    # The same frames as those of a clip of three, and as those of a store.
    for changes in ({"num_frames": 3}, {"data_dir": str(store)}):
        config.update(changes)
        again = evaluation.run(config, source=tmp_path / "run")
        assert again["psnr"] == pytest.approx(summary["psnr"], rel=1e-6)


def test_a_network_of_video_mode_is_refused_on_single_frames(folder, tmp_path):
    path = video_network(tmp_path / "zero.safetensors", channels=9)
    with pytest.raises(InputError, match=r"network of video mode \(9 channels\).* image mode"):
        evaluation.run(tiny_config(folder, num_frames=1), source=path)


def test_the_store_trains_the_same_network(trained, store, tmp_path):
    state = training.train_and_evaluate(tiny_config(store), tmp_path / "run")
    assert_equal_states(state, trained[1])


def test_a_run_goes_on_from_another_copy_of_the_clips(trained, folder, store, tmp_path):
    # Stopped after two of four steps: with the schedule of four, by an interruption.
    workdir = tmp_path / "run"
    training.train_and_evaluate(tiny_config(folder), workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    state = training.train_and_evaluate(tiny_config(store), workdir)
    assert_equal_states(state, trained[1])


def video_network(path, channels=9):
    module = AtrousNet(num_channels=4, num_blocks=1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 16, 16, channels)))
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["params"])
    weights.save(path, weights.Deblurrer(module, params, {"channels": channels}))
    return path


@pytest.mark.parametrize(
    ("size", "channels", "num_frames"), [(0, 3, 3), (16, 9, 3), (0, 3, 1), (16, 3, 1)]
)
def test_a_network_that_changes_nothing_scores_as_the_current_frames(
    folder, tmp_path, size, channels, num_frames
):
    config = tiny_config(folder, eval_patch_size=size, num_frames=num_frames)
    path = video_network(tmp_path / "zero.safetensors", channels)
    summary = evaluation.run(config, source=path)
    for name in ("psnr", "ssim", "mse"):
        np.testing.assert_allclose(summary[name], summary["blurred"][name], rtol=1e-5)


def test_whole_frames_of_any_size_are_measured_as_scikit_image_does(folder, store, tmp_path):
    for source in (folder, store):
        output = tmp_path / source.name
        summary = evaluation.run(tiny_config(source, eval_patch_size=0), output=output)
        with (output / "per_image.csv").open() as file:
            rows = list(csv.DictReader(file))
        labels = [f"{clip}/{frame:08}" for clip in ("000", "001") for frame in range(3)]
        assert [row["image"] for row in rows] == labels
        for row in rows:
            sharp, blurred = (
                np.asarray(Image.open(folder / f"val_{kind}" / f"{row['image']}.png"))
                for kind in ("sharp", "blur")
            )
            expected = peak_signal_noise_ratio(sharp, blurred)
            assert float(row["blurred_psnr"]) == pytest.approx(expected, rel=1e-4)
        assert summary["protocol"].startswith("REDS val (blur), whole frames")
        assert summary["num_images"] == 6
        with Image.open(output / "images.png") as picture:
            assert picture.width > 0


def test_whole_frames_in_tiles_are_restored_as_by_the_network_itself(trained, folder, tmp_path):
    workdir, _ = trained
    evaluation.run(tiny_config(folder, eval_patch_size=0), source=workdir, output=tmp_path)
    with (tmp_path / "per_image.csv").open() as file:
        row = list(csv.DictReader(file))[1]  # a frame with both neighbours, of 40x48 pixels
    frames = [
        np.asarray(Image.open(folder / f"val_blur/000/{number:08}.png"), np.float32) / 255
        for number in (0, 1, 2)
    ]
    sharp = np.asarray(Image.open(folder / "val_sharp/000/00000001.png")) / 255
    deblurrer = jaxdeblur.load(workdir)
    blurred = np.concatenate(frames, axis=-1)[None]
    restored = np.clip(jax.jit(deblurrer.module.apply)(deblurrer.variables(), blurred), 0, 1)[0]
    expected = peak_signal_noise_ratio(sharp.astype(np.float32), restored, data_range=1)
    assert float(row["psnr"]) == pytest.approx(expected, abs=0.01)


def test_the_crops_of_the_published_protocol_are_named(folder):
    summary = evaluation.run(tiny_config(folder))
    assert summary["protocol"].startswith(
        "REDS val (blur), random 16x16 crops, one of each frame, seed 0;"
    )


def test_a_published_row_stands_beside_ours(trained, folder, capsys):
    evaluation.run(tiny_config(folder), source=trained[0])
    output = capsys.readouterr().out
    assert "27.05" in output
    assert "32.42" in output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_patch_size": 0, "eval_repeats": 2}, "config.eval_repeats = 2"),
        ({"eval_patch_size": 0, "dataset": "photos"}, "config.eval_patch_size = 0"),
        ({"eval_patch_size": 10}, "config.eval_patch_size = 10 must be at least 11"),
        ({"brightness": -0.1}, "config.brightness = -0.1"),
        ({"patch_size": 64}, "patch_size = 64 is larger than train/000 (40x48 pixels)"),
        ({"blur_variant": "blur_jpeg"}, "'blur_jpeg'"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "store"])
def test_bad_input_is_named_and_writes_nothing(request, kind, changes, message, tmp_path):
    config = tiny_config(request.getfixturevalue(kind), **changes)
    with pytest.raises(InputError, match=re.escape(message)):
        training.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_truncated_frame_ends_the_run_with_its_name(folder, tmp_path):
    damaged = tmp_path / "data"
    shutil.copytree(folder, damaged)
    frame = damaged / "train_blur/001/00000001.png"
    frame.write_bytes(frame.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"train_blur/001/00000001.png is damaged"):
        training.train_and_evaluate(tiny_config(damaged), tmp_path / "run")


def test_a_real_reds_clip_is_trained_on(shared_data, tmp_path):
    config = tiny_config(shared_data / "reds", num_steps=2, eval_every_steps=2)
    training.train_and_evaluate(config, tmp_path)
    (evaluated,) = (line for line in metrics_lines(tmp_path) if "eval/psnr" in line)
    assert 20 < evaluated["eval/blurred_psnr"] < 35


def test_real_gopro_pairs_are_measured_whole(shared_data, tmp_path):
    config = tiny_config(shared_data / "gopro", dataset="gopro", eval_patch_size=0)
    summary = evaluation.run(config, output=tmp_path)
    expected = []
    for scene in sorted((shared_data / "gopro/test").iterdir()):
        sharp, blurred = (
            np.asarray(Image.open(scene / k / "000001.png")) for k in ("sharp", "blur")
        )
        expected.append(peak_signal_noise_ratio(sharp, blurred))
    assert summary["num_images"] == len(expected)
    assert summary["blurred"]["psnr"] == pytest.approx(np.mean(expected), rel=1e-4)
