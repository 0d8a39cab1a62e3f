import numpy as np
import pytest
from PIL import Image
from positions import make_config

from jaxdeblur.data import datasets
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
