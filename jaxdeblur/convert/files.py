"""Weights of other programs, whatever their kind, by what is inside the files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flax import linen as nn

from jaxdeblur.convert.archives import head, is_safetensors, opened_zip
from jaxdeblur.convert.keras import from_keras, has_model
from jaxdeblur.convert.maxim import from_maxim
from jaxdeblur.convert.nafnet import from_nafnet
from jaxdeblur.errors import InputError

_KNOWN = (
    "NafNet's .pth or its tensors as safetensors; MAXIM's checkpoint.npz, TensorFlow.js package "
    "(.tgz) or its folder; a Keras model's .keras file, or its JSON and HDF5 file"
)


def read(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any], str]:
    """Reads official weights, of the kind that the files prove to be; nothing in them is run.

    Args:
      path: a file or folder that `from_nafnet` or `from_maxim` takes; or of what `from_keras` takes
        the one file of both, or either file, if the other is the only one of its kind beside it, or
        the folder of both.

    Returns:
      The module, its parameters as float32 arrays, and where they come from in a few words, such as
      "NAFNet, NAFNet-GoPro-width64.pth".

    Raises:
      InputError: no such file, or it is damaged or of no kind that is known.
    """
    path = Path(path)
    name = path.resolve().name
    match _kind_of_folder(path) if path.is_dir() else _kind(path):
        case "torch" | "safetensors":
            return *from_nafnet(path), f"NAFNet, {name}"
        case "numpy" | "package" | "graph folder":
            return *from_maxim(path), f"MAXIM, {name}"
        case "graph":
            return *from_maxim(path.parent), f"MAXIM, {name}"
        case "keras archive":
            return *from_keras(path), f"Keras, {name}"
        case "hdf5" if has_model(path):
            return *from_keras(path), f"Keras, {name}"
        case "keras" | "hdf5" | "keras folder":
            model_json, weights_h5 = _keras_pair(path)
            return *from_keras(model_json, weights_h5), f"Keras, {weights_h5.name}"
    raise InputError(f"path = {str(path)!r} is nothing that can be read: {_KNOWN}")


def _kind(path: Path) -> str | None:
    start = head(path)
    if start.startswith(b"PK"):
        with opened_zip(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/data.pkl") for name in names):
            return "torch"
        if {"config.json", "model.weights.h5"} <= set(names):
            return "keras archive"
        return "numpy" if any(name.endswith(".npy") for name in names) else None
    signatures = {b"\x1f\x8b": "package", b"\x89HDF": "hdf5", b"\x80": "torch"}
    for signature, kind in signatures.items():
        if start.startswith(signature):
            return kind
    if is_safetensors(start):
        return "safetensors"
    if start.lstrip().startswith(b"{"):
        texts = {b'"graph-model"': "graph", b'"class_name"': "keras"}
        return next((kind for text, kind in texts.items() if text in start), None)
    return None


def _kind_of_folder(path: Path) -> str | None:
    for model in (path / "model.json", path / "package" / "models" / "model.json"):
        if model.is_file() and _kind(model) == "graph":
            return "graph folder"
    return "keras folder" if any(_keras_files(path).values()) else None


def _keras_files(folder: Path) -> dict[str, list[Path]]:
    found = {}
    for kind, pattern in (("keras", "*.json"), ("hdf5", "*.h5")):
        files = sorted(file for file in folder.glob(pattern) if file.is_file())
        found[kind] = [file for file in files if _kind(file) == kind]
    return found


def _keras_pair(path: Path) -> tuple[Path, Path]:
    """Returns the JSON and the HDF5 file of a model, given either or their folder."""
    folder = path if path.is_dir() else path.parent
    files = _keras_files(folder)
    if path.is_file():
        files[_kind(path) or ""] = [path]
    if any(len(found) != 1 for found in files.values()):
        raise InputError(
            f"path = {str(path)!r}: {str(folder)!r} has {len(files['keras'])} .json and "
            f"{len(files['hdf5'])} .h5 files of Keras models; name the two that belong together: "
            "jaxdeblur.convert.from_keras(model_json, weights_h5)"
        )
    return files["keras"][0], files["hdf5"][0]
