"""The datasets by name: a new kind of source is a file beside this one, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxdeblur.data import cifar, photos
from jaxdeblur.data.clips import source as clips
from jaxdeblur.data.source import Kind, Source, check_fits

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# By `config.dataset`. To guess what a folder holds, they are asked in this order.
DATASETS: dict[str, Kind] = {
    "cifar10": cifar.KIND,
    "clips": clips.kind("clips"),
    "reds": clips.kind("REDS"),
    "gopro": clips.kind("GoPro"),
    "photos": photos.FOLDER,
    "skimage": photos.SKIMAGE,
}


def open_source(config: ConfigDict, split: str) -> Source:
    """Opens the split "train", "val" or "test" of the configured dataset.

    Raises:
      InputError: no such data, or images smaller than the patch.
    """
    source = DATASETS[config.dataset].open(config, split)
    key = "patch_size" if split == "train" else "eval_patch_size"
    check_fits(source, config[key], key)
    return source


def guess(folder: str) -> str | None:
    """The name of the dataset that a folder, or an address, looks like; None for none."""
    return next((name for name, kind in DATASETS.items() if kind.lies_in(folder)), None)
