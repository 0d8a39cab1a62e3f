import numpy as np
import pytest
from PIL import Image
from positions import Positions, make_config
from small_runs import metrics_lines, tiny_config

from jaxdeblur import evaluation, training
from jaxdeblur.data import datasets
from jaxdeblur.data.source import Kind
from jaxdeblur.errors import InputError


def save_photo(path, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)


@pytest.mark.parametrize(("split", "key"), [("train", "patch_size"), ("val", "eval_patch_size")])
def test_patch_larger_than_a_photograph_names_key_and_file(tmp_path, split, key):
    save_photo(tmp_path / split / "large.png", 90, 90)
    save_photo(tmp_path / split / "small.png", 80, 40)
    (tmp_path / "train").mkdir(exist_ok=True)
    fitting = {"dataset": "photos", "data_dir": str(tmp_path), "patch_size": 8}
    fitting |= {"eval_patch_size": 8, key: 40}
    assert len(datasets.open_source(make_config(**fitting), split)) == 2
    with pytest.raises(InputError, match=rf"^{key} = 41 .*small\.png.*80x40"):
        datasets.open_source(make_config(**(fitting | {key: 41})), split)


def test_dataset_decides_the_source(tmp_path, shared_data):
    source = datasets.open_source(make_config(dataset="skimage"), "val")
    assert source.labels == ["chelsea.png", "coffee.png"]
    source = datasets.open_source(make_config(data_dir=str(shared_data / "tfds")), "test")
    assert len(source) == 500
    with pytest.raises(InputError, match=r"eval_patch_size = 33 .*CIFAR-10 test.*32x32"):
        datasets.open_source(
            make_config(data_dir=str(shared_data / "tfds"), eval_patch_size=33), "test"
        )


@pytest.mark.parametrize(
    ("folders", "name"),
    [
        (["cifar10/3.0.2"], "cifar10"),
        (["train_sharp/000", "train_blur/000"], "clips"),
        (["test/GOPR0384_11_00/sharp", "test/GOPR0384_11_00/blur"], "clips"),
        (["holidays"], "photos"),
        ([], "photos"),
    ],
)
def test_what_a_folder_holds_is_guessed(tmp_path, folders, name):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    assert datasets.guess(str(tmp_path)) == name


def test_nothing_is_guessed_of_no_folder(tmp_path):
    assert datasets.guess(str(tmp_path / "nowhere")) is None


class Film:
    """A source that is like none of the package's: three frames of noise, and a darker one."""

    num_frames = 3
    name = title = "film"

    def __init__(self):
        self._frames = np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), np.uint8)
        self.labels = [str(i) for i in range(5)]

    def __len__(self):
        return 5

    def smallest_size(self):
        return 24, 32, "film"

    def training_sample(self, config):
        return lambda index, rng: self._cut(index, config.patch_size)

    def evaluation_sample(self, config):
        return lambda index, repeat: self._cut(index, config.eval_patch_size)

    def whole_sample(self, index):
        return self._cut(index, None)

    def protocol(self, config):
        return "every frame"

    def _cut(self, index, size):
        frame = self._frames[index, :size, :size]
        return {"blurred": np.concatenate([frame] * 3, axis=-1), "sharp": frame // 2}


@pytest.mark.parametrize(
    ("kind", "channels", "eval_patch_size"),
    [
        (Kind(lambda config, split: Positions(5, 24, 32)), 3, 16),
        (Kind(lambda config, split: Film(), has_whole=True), 9, 16),
        (Kind(lambda config, split: Film(), has_whole=True), 9, 0),
    ],
    ids=["images", "frames", "whole frames"],
)
def test_a_new_kind_of_source_needs_its_line_alone(
    monkeypatch, tmp_path, kind, channels, eval_patch_size
):
    monkeypatch.setitem(datasets.DATASETS, "new", kind)
    changes = {"dataset": "new", "num_steps": 2, "eval_every_steps": 2}
    config = tiny_config(**changes, eval_patch_size=eval_patch_size)
    state = training.train_and_evaluate(config, tmp_path)
    assert state.params["stem"]["kernel"].shape[2] == channels
    assert np.isfinite(metrics_lines(tmp_path)[-1]["eval/psnr"])
    summary = evaluation.run(config, source=tmp_path)
    assert summary["num_images"] == 5
    assert summary["card"]["channels"] == channels
    expected = "every frame" if channels == 9 else "16x16 pixels"
    assert expected in summary["protocol"]


def test_whole_images_are_for_kinds_that_have_them(monkeypatch, tmp_path):
    monkeypatch.setitem(datasets.DATASETS, "new", Kind(lambda config, split: Positions(5)))
    with pytest.raises(InputError, match="eval_patch_size = 0, whole frames, is for clips; new"):
        training.train_and_evaluate(tiny_config(dataset="new", eval_patch_size=0), tmp_path)
