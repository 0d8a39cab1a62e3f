"""Small pictures of all formats for `fuzz.py`, sound and damaged; the same bytes for one seed."""

from __future__ import annotations

import functools
import io
import random
import tempfile
from pathlib import Path

import av
import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".heic": "HEIF"}
_FORMATS |= {f".{name}": name.upper() for name in ("png", "webp", "bmp", "gif", "avif")}
SUFFIXES = tuple(_FORMATS)

# Height and width in pixels: few, since each is compiled.
_SIZES = ((8, 8), (9, 13), (16, 16), (24, 10), (20, 24))
_MODES = {".png": ("RGB", "RGBA", "L", "P", "I;16"), ".tif": ("RGB", "L", "I;16")}


def photo(rng: random.Random, suffix: str) -> bytes:
    """A sound photograph in the format of a suffix."""
    suffix = suffix.lower()
    mode = rng.choice(_MODES.get(suffix, ("RGB",)))
    return _photo(suffix, mode, rng.choice(_SIZES), rng.randint(0, 3))


def damaged(rng: random.Random, suffix: str) -> bytes:
    """What has the suffix of a photograph and is none that can be read."""
    whole = _photo(".jpg" if suffix == ".jpeg" else ".png", "RGB", (20, 24), 0)
    return rng.choice((b"", b"no picture", rng.randbytes(60), whole[: len(whole) // 2], whole[:20]))


@functools.cache
def video(suffix: str) -> bytes:
    """Three small frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video{suffix.lower()}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", 25)
            stream.height = stream.width = 16
            stream.pix_fmt = "yuv420p"
            for level in (60, 90, 120):
                frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), level, np.uint8))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


@functools.cache
def _photo(suffix: str, mode: str, size: tuple[int, int], seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(20, 200, (*size, 3), np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, _FORMATS[suffix])
    return file.getvalue()
