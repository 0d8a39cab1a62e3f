import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxdeblur.data import cifar
from jaxdeblur.errors import InputError

LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
IMAGES_PER_FILE = 3


def images_and_labels():
    """Random images, the training ones first, in the order of the files."""
    rng = np.random.default_rng(0)
    count = IMAGES_PER_FILE * len(FILES)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)


def write_archive(path, change=lambda contents: None):
    """Writes the authors' binary version: a label and three planes of 32x32 a record."""
    images, labels = images_and_labels()
    records = [
        bytes([label]) + image.transpose(2, 0, 1).tobytes()
        for image, label in zip(images, labels, strict=True)
    ]
    contents = {
        name: b"".join(records[i * IMAGES_PER_FILE : (i + 1) * IMAGES_PER_FILE])
        for i, name in enumerate(FILES)
    }
    contents["batches.meta.txt"] = ("\n".join(LABELS) + "\n\n").encode()
    change(contents)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A TFDS folder prepared in a process of its own, and what that process printed."""
    folder = tmp_path_factory.mktemp("prepared")
    archive = write_archive(folder / "cifar-10-binary.tar.gz")
    program = (
        "import sys\n"
        "from jaxdeblur.data import cifar\n"
        "path = cifar.prepare(sys.argv[1], sys.argv[2])\n"
        "images = cifar.Cifar10(sys.argv[1], 'test')\n"
        "print(path, len(images), 'tensorflow' in sys.modules, sep='|')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "tfds"), str(archive)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder / "tfds", done.stdout.splitlines()[-1].split("|")


def test_preparing_and_reading_do_without_tensorflow(prepared):
    data_dir, (path, num_test, has_tensorflow) = prepared
    assert Path(path) == data_dir / "cifar10" / "3.0.2"
    assert int(num_test) == IMAGES_PER_FILE
    assert has_tensorflow == "False"


def test_prepared_images_are_those_of_the_archive(prepared):
    images, _ = images_and_labels()
    train, val, test = (cifar.Cifar10(prepared[0], split) for split in ("train", "val", "test"))
    # TFDS shuffles what it writes, by the image's number, and so as it does with the real data.
    assert [len(train), len(val), len(test)] == [12, 3, 3]
    labels = [*train.labels, *val.labels, *test.labels]
    assert sorted(labels[:15]) == [f"train_{i:05d}" for i in range(15)]
    assert sorted(labels[15:]) == [f"test_{i:05d}" for i in range(3)]
    by_label = {f"train_{i:05d}": images[i] for i in range(15)}
    by_label |= {f"test_{i:05d}": images[15 + i] for i in range(3)}
    for source in (train, val, test):
        for i, label in enumerate(source.labels):
            assert source[i].dtype == np.uint8
            np.testing.assert_array_equal(source[i], by_label[label])


def test_prepared_copy_is_one_of_tfds(prepared):
    import tensorflow_datasets as tfds

    images, labels = images_and_labels()
    builder = tfds.builder("cifar10", data_dir=prepared[0], file_format="array_record")
    assert builder.version == "3.0.2"
    assert builder.info.features["label"].names == LABELS
    sources = builder.as_data_source()
    assert {split: len(source) for split, source in sources.items()} == {"train": 15, "test": 3}
    for split, first in (("train", 0), ("test", 15)):
        for record in sources[split]:
            index = first + int(record["id"].decode().removeprefix(f"{split}_"))
            np.testing.assert_array_equal(record["image"], images[index])
            assert record["label"] == labels[index]


def test_preparing_again_keeps_the_copy(prepared, tmp_path):
    files = sorted((prepared[0] / "cifar10" / "3.0.2").iterdir())
    before = [(file.name, file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    archive = write_archive(tmp_path / "cifar-10-binary.tar.gz")
    cifar.prepare(prepared[0], archive)
    files = sorted((prepared[0] / "cifar10" / "3.0.2").iterdir())
    assert [(f.name, f.read_bytes(), f.stat().st_mtime_ns) for f in files] == before


def damaged(path, kind):
    if kind == "text":
        path.write_text("this is no archive")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        write_archive(path)
        path.write_bytes(path.read_bytes()[:20_000])
    elif kind == "flipped":
        write_archive(path)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))
    elif kind == "file missing":
        write_archive(path, lambda contents: contents.pop("data_batch_4.bin"))
    elif kind == "names missing":
        write_archive(path, lambda contents: contents.pop("batches.meta.txt"))
    elif kind == "record cut":
        write_archive(path, lambda c: c.update({"data_batch_2.bin": c["data_batch_2.bin"][:-7]}))
    return path


@pytest.mark.parametrize(
    "kind", ["text", "empty", "cut", "flipped", "file missing", "names missing", "record cut"]
)
def test_damaged_archive_is_refused_by_name(tmp_path, kind):
    archive = damaged(tmp_path / "bad.tar.gz", kind)
    with pytest.raises(InputError, match=r"bad\.tar\.gz"):
        cifar.prepare(tmp_path / "tfds", archive)
    assert not list((tmp_path / "tfds").rglob("dataset_info.json"))


def test_missing_archive_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.tar\.gz.*does not exist"):
        cifar.prepare(tmp_path, tmp_path / "nowhere.tar.gz")


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_folder_without_cifar_is_refused_with_the_fix(tmp_path, name):
    with pytest.raises(InputError, match=r"holds no cifar10/3\.0\.2.*jaxdeblur prepare cifar10"):
        cifar.Cifar10(tmp_path / name, "train")


@pytest.fixture(scope="module")
def real(shared_data):
    return {s: cifar.Cifar10(shared_data / "tfds", s) for s in ("train", "val", "test")}


def test_real_images_are_split_as_published(real):
    assert {s: len(source) for s, source in real.items()} == {
        "train": 4350,
        "val": 1088,
        "test": 500,
    }
    assert not set(real["train"].labels) & set(real["val"].labels)
    assert all(label.startswith("test_") for label in real["test"].labels)
    assert real["test"].smallest_size()[:2] == (32, 32)


def test_real_images_are_those_of_tfds(real, shared_data):
    import tensorflow_datasets as tfds

    records = tfds.data_source("cifar10", data_dir=shared_data / "tfds", split="train")
    for i in (0, 1, 4349):
        assert real["train"].labels[i] == records[i]["id"].decode()
        np.testing.assert_array_equal(real["train"][i], records[i]["image"])
    np.testing.assert_array_equal(real["val"][0], records[4350]["image"])
    np.testing.assert_array_equal(real["val"][1087], records[5437]["image"])
