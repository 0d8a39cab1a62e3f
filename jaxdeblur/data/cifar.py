"""CIFAR-10 through tensorflow-datasets, read and prepared without TensorFlow."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdeblur.data.patches import SharpImages
from jaxdeblur.data.source import Kind
from jaxdeblur.errors import InputError, naming_extra

if TYPE_CHECKING:
    from ml_collections import ConfigDict

NAME, VERSION = "cifar10", "3.0.2"

# The published protocol validates on the last fifth of the training images.
_SPLITS = {"train": "train[:80%]", "val": "train[80%:]", "test": "test"}

_RECORD_BYTES = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes
_TRAIN_FILES = [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)]
_TEST_FILES = ["cifar-10-batches-bin/test_batch.bin"]
_LABELS_FILE = "cifar-10-batches-bin/batches.meta.txt"


class Cifar10(SharpImages):
    """The 32x32 images of one split, decoded once (150 MB for all of CIFAR-10).

    Args:
      data_dir: folder of TFDS that holds `cifar10/3.0.2` as ArrayRecord files.
      split: "train", "val" or "test".

    Raises:
      InputError: no prepared copy there.
    """

    def __init__(self, data_dir: str | os.PathLike[str], split: str):
        with naming_extra():
            import tensorflow_datasets as tfds

        folder = Path(data_dir).expanduser() / NAME / VERSION
        if not (folder / "dataset_info.json").is_file():
            raise InputError(
                f"data_dir = {str(data_dir)!r} holds no {NAME}/{VERSION}; point "
                "--config.data_dir at a TFDS folder, or make one with "
                "`jaxdeblur prepare cifar10 --data-dir DIR`"
            )
        try:
            builder: Any = tfds.builder_from_directory(folder)
            records = builder.as_data_source(split=_SPLITS[split])
        except NotImplementedError as error:
            raise InputError(
                f"data_dir = {str(data_dir)!r} holds {NAME} in a format that needs TensorFlow; "
                "make an ArrayRecord copy with `jaxdeblur prepare cifar10 --data-dir DIR`"
            ) from error
        self.name = self.title = f"CIFAR-10 {split}"
        self._images = np.empty((len(records), 32, 32, 3), np.uint8)
        self.labels: list[str] = []
        for i, record in enumerate(records):
            self._images[i] = record["image"]
            self.labels.append(record["id"].decode())

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._images[index]

    def sizes(self) -> list[int]:
        """A checksum of all of them, whose sizes are the same."""
        return [zlib.crc32(self._images.data)]

    def smallest_size(self) -> tuple[int, int, str]:
        """Height and width of the smallest image, and its name."""
        return (*self._images.shape[1:3], self.name)


def _open(config: ConfigDict, split: str) -> Cifar10:
    return Cifar10(config.data_dir, split)


def _lies_in(folder: str) -> bool:
    return (Path(folder).expanduser() / NAME).is_dir()


KIND = Kind(_open, lies_in=_lies_in)


def prepare(
    data_dir: str | os.PathLike[str], archive: str | os.PathLike[str] | None = None
) -> Path:
    """Writes CIFAR-10 as TFDS does (`cifar10/3.0.2`, ArrayRecord), without TensorFlow.

    Args:
      data_dir: TFDS folder; made where missing. A copy that is there already is kept.
      archive: the authors' `cifar-10-binary.tar.gz`, if it is at hand; downloaded by TFDS, which
        checks its SHA-256, if not.

    Returns:
      The folder of the prepared data.

    Raises:
      InputError: the archive is missing, is damaged or is not CIFAR-10's binary version.
    """
    data_dir = Path(data_dir).expanduser()
    if archive is not None:
        archive = Path(archive).expanduser()
        _check_archive(archive)
    builder = _make_builder(data_dir, archive)
    builder.download_and_prepare(file_format="array_record")
    return Path(builder.data_dir)


def _check_archive(archive: Path) -> None:
    try:
        with gzip.open(archive) as file:  # to its end, where the checksum is
            while file.read(2**20):
                pass
        with tarfile.open(archive) as tar:
            tar.getmember(_LABELS_FILE)
            for name in _TRAIN_FILES + _TEST_FILES:
                if tar.getmember(name).size % _RECORD_BYTES:
                    raise InputError(f"archive = {str(archive)!r}: {name} is truncated")
    except FileNotFoundError as error:
        raise InputError(f"archive = {str(archive)!r} does not exist") from error
    except (KeyError, EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise InputError(
            f"archive = {str(archive)!r} is not cifar-10-binary.tar.gz ({error}); "
            "download it again from the CIFAR-10 page"
        ) from error


def _make_builder(data_dir: Path, archive: Path | None):
    """TFDS's own builder of CIFAR-10, less the places where it needs TensorFlow.

    It differs in two: files are opened with Python, and images are handed over as PNG bytes,
    which TFDS stores as they are, where arrays would be encoded by TensorFlow.
    """
    from etils import epath
    from tensorflow_datasets.core import registered
    from tensorflow_datasets.image_classification import cifar

    with registered.skip_registration():

        class Cifar10Builder(cifar.Cifar10):
            name = NAME
            code_path = epath.Path(cifar.__file__)  # beside which TFDS keeps the checksum

            def _split_generators(self, dl_manager):
                path = archive or dl_manager.download(self._cifar_info.url)
                labels: Any = self.info.features["label"]  # type: ignore[index]
                labels.names = _read(path, _LABELS_FILE).decode().split()
                return {
                    "train": self._examples(path, _TRAIN_FILES, "train"),
                    "test": self._examples(path, _TEST_FILES, "test"),
                }

            def _examples(self, path, files, split):
                for index, (label, image) in enumerate(_records(path, files)):
                    identity = f"{split}_{index:05d}"
                    yield index, {"id": identity, "image": io.BytesIO(image), "label": label}

        return Cifar10Builder(data_dir=data_dir)


def _records(archive, names: list[str]) -> Iterator[tuple[int, bytes]]:
    """Yields label and PNG of every record of the binary files, in order."""
    from PIL import Image

    for name in names:
        records = np.frombuffer(_read(archive, name), np.uint8)
        for record in records.reshape(-1, _RECORD_BYTES):
            png = io.BytesIO()
            planes = record[1:].reshape(3, 32, 32)
            Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).save(png, "PNG")
            yield int(record[0]), png.getvalue()


def _read(archive, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(name)
        if member is None:
            raise InputError(f"archive = {str(archive)!r}: {name} is no file")
        return member.read()
