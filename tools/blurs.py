"""Measures which model mends which blur, and writes the table that says so.

  python tools/blurs.py --data_dir DIR --models atrous-photo maxim-gopro "maxim-gopro, effort 1"
  python tools/blurs.py --page

DIR has the folders `photos` (with `val`), `gopro` and `reds`. The first measures the models, keeps
the rows of others, and writes jaxdeblur/cli/blurs.json, which `jaxdeblur models` shows, and the
page docs/models.md. The last writes the page alone.

Of photographs the central 256x256 pixels are taken; of frames of GoPro too; those of REDS are
whole. What is sharp is restored as it is, and its PSNR tells how much harm is done.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from jaxdeblur import metrics
from jaxdeblur.cli.models import BLURS, blur_rows
from jaxdeblur.data import degrade, photos
from jaxdeblur.data.blur import gaussian_blur
from jaxdeblur.data.clips.source import open_clips
from jaxdeblur.errors import reported
from jaxdeblur.pixels import to_float
from jaxdeblur.restoring import tiling
from jaxdeblur.runtime import startup
from jaxdeblur.weights import Deblurrer, load

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "jaxdeblur" / "cli" / "blurs.json"

SIDE = 256
NUM_PHOTOS = 12
NUM_FRAMES = 6
LARGE = (3000, 4000)  # pixels of the photograph whose time is told

Pair = tuple[np.ndarray, np.ndarray]  # uint8, to be restored, and as it should be

PAGE = """\
# Which model for which blur

With this page you choose the weights for a picture, by the kind of its blur.

{table}

The columns are decibels that a model gains above the blurred picture. A negative figure is harm.
"sharp" and "screenshot" are pictures that need nothing: there the figure is the PSNR of what the
model makes of them, and more is better. There 99 dB stands for a picture that comes back as it was.
"12 MP" is the time of a photograph of 4000x3000 pixels, counted from the time of one of its tiles
({hardware}, {date}).

- A photograph that was **shaken**, or in which something **moved**: `maxim-gopro`. It is a network
  of others, and slow on a CPU. `jaxdeblur fetch maxim-gopro` gets it. `--effort 1` takes a quarter
  of the time and gives most of the gain.
- A photograph that is **out of focus**, or soft as a Gaussian makes it: `atrous-photo`, the
  default.
- A **sharp** photograph or a **screenshot**: none.

When a picture comes back hardly changed, the command says so, and names what may do more.

```sh
jaxdeblur fetch maxim-gopro
jaxdeblur deblur shaken.jpg --model maxim-gopro
# measures the table
python tools/blurs.py --data_dir DIR --models {models}
```

The pictures: the central 256x256 pixels of {num_photos} photographs of BSDS500 val, blurred by
Gaussians (OpenCV's of 8 bits), out of focus (a disk of 3 pixels) and shaken (paths of 15 pixels),
the last two in linear light; the central 256x256 pixels of 3 frames of GoPro's test scenes;
{num_frames} frames of REDS val at 320x180; the same photographs sharp; a drawn screenshot. The
weights of MAXIM were trained on GoPro's training scenes, which is why they do best there: expect
less elsewhere.

NAFNet's official files are to be had by hand only (`jaxdeblur fetch nafnet-gopro-width32` names the
page and the file). They have not been measured here. Their published figure on GoPro is in
[results.md](results.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, metavar="DIR")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME[, effort N]")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    with reported():
        if not arguments.page:
            startup.use_compilation_cache()
            measure_all(arguments.models, arguments.data_dir)
        (ROOT / "docs" / "models.md").write_text(page(), encoding="utf-8")


def measure_all(models: list[str], data_dir: Path) -> None:
    """Measures models, and writes their rows beside those of others."""
    pairs = {name: list(make(data_dir)) for name, make in MAKERS.items()}
    rows = {row["model"]: row for row in json.loads(TABLE.read_text())} if TABLE.exists() else {}
    for model in models:
        name, _, effort = model.partition(", effort ")
        deblurrer = load(name, effort=int(effort) if effort else None)
        rows[model] = {"model": model, **measure(deblurrer, pairs), **circumstances()}
        print(rows[model], flush=True)
        TABLE.write_text(json.dumps(list(rows.values()), indent=1) + "\n")


def measure(deblurrer: Deblurrer, pairs: dict[str, list[Pair]]) -> dict[str, Any]:
    """What a model makes of each kind of blur, dB, and the seconds of a large photograph."""
    figures: dict[str, Any] = {}
    for name, made in pairs.items():
        gains = []
        for blurred, sharp in made:
            after = psnr(deblurrer(blurred), sharp)
            # Where nothing is to be restored, what is left of it; as a limit, for infinity.
            still = np.array_equal(blurred, sharp)
            gains.append(min(after, 99.0) if still else after - psnr(blurred, sharp))
        figures[name] = round(float(np.mean(gains)), 2)
    return figures | {"seconds": round(seconds_of_large(deblurrer), 1)}


def seconds_of_large(deblurrer: Deblurrer) -> float:
    """Seconds for all tiles of a photograph of `LARGE`, from a second call with one of them."""
    plan = tiling.plan(deblurrer.module, LARGE, single=True, budget=10**7)
    tile = np.random.default_rng(0).integers(0, 256, (*plan.shape, 3), np.uint8)
    for _ in range(2):
        start = time.perf_counter()
        deblurrer(tile[None], scales=(), tile="off")
        seconds = time.perf_counter() - start
    return seconds * len(plan.rows) * len(plan.columns)


def psnr(picture: np.ndarray, sharp: np.ndarray) -> float:
    return float(metrics.psnr(to_float(picture), to_float(sharp)))


def circumstances() -> dict[str, str]:
    """The processor and the date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line for line in lines if line.startswith("model name")]
    processor = names[0].partition(": ")[2] if names else platform.machine()
    return {"hardware": f"{len(names)} cores of {processor}", "date": str(datetime.date.today())}


def patches(data_dir: Path, margin: int = 0) -> Iterator[np.ndarray]:
    """The middles of photographs, with a margin."""
    source = photos.photo_folder(str(data_dir / "photos"), "val")
    side = SIDE + 2 * margin
    for i in np.linspace(0, len(source) - 1, NUM_PHOTOS).astype(int):
        picture = source[int(i)]
        top, left = ((size - side) // 2 for size in picture.shape[:2])
        yield picture[top : top + side, left : left + side]


def soft(sigma: float) -> Callable[[Path], Iterator[Pair]]:
    """Photographs with a Gaussian blur of that many pixels."""

    def make(data_dir: Path) -> Iterator[Pair]:
        for sharp in patches(data_dir):
            blurred = gaussian_blur(sharp[None], np.array([sigma], np.float32), sigma)[0]
            yield np.asarray(blurred, np.uint8), sharp

    return make


def in_light(kernel: Callable[[np.random.Generator], np.ndarray]):
    """Photographs blurred by kernels in linear light."""

    def make(data_dir: Path) -> Iterator[Pair]:
        margin = degrade.MARGIN
        for i, photo in enumerate(patches(data_dir, margin)):
            light = degrade.blur(degrade.to_linear(photo), kernel(np.random.default_rng(i)))
            blurred = np.rint(255 * degrade.to_encoded(light)).astype(np.uint8)
            yield blurred, photo[margin:-margin, margin:-margin]

    return make


def frames(name: str, count: int, crop: bool) -> Callable[[Path], Iterator[Pair]]:
    """Frames of a dataset of clips, whole or their middles."""

    def make(data_dir: Path) -> Iterator[Pair]:
        split = "test" if name == "gopro" else "val"
        source = open_clips(str(data_dir / name), split, "blur", name, num_frames=1)
        for i in np.linspace(0, len(source) - 1, count).astype(int):
            sample = source.whole_sample(int(i))
            pair = sample["blurred"], sample["sharp"]
            yield tuple(_middle(picture) for picture in pair) if crop else pair

    return make


def _middle(picture: np.ndarray) -> np.ndarray:
    top, left = ((size - SIDE) // 2 for size in picture.shape[:2])
    return picture[top : top + SIDE, left : left + SIDE]


def sharp_photos(data_dir: Path) -> Iterator[Pair]:
    """The photographs as they are."""
    for photo in patches(data_dir):
        yield photo, photo


def screenshot(data_dir: Path) -> Iterator[Pair]:
    """A window with text, lines and flat areas."""
    del data_dir
    picture = Image.new("RGB", (SIDE, SIDE), (245, 246, 248))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, SIDE, 23), fill=(48, 63, 94))
    draw.text((8, 6), "Report - Window", fill=(255, 255, 255))
    for line in range(9):
        colour = (20, 20, 20) if line % 3 else (0, 92, 197)
        draw.text((12, 34 + 14 * line), "The quick brown fox jumps over it.", fill=colour)
    draw.rectangle((12, 172, 110, 240), outline=(120, 120, 120), fill=(255, 255, 255))
    draw.line((12, 240, 60, 190, 110, 200), fill=(200, 30, 30))
    draw.ellipse((140, 176, 200, 236), fill=(46, 160, 67))
    array = np.asarray(picture)
    yield array, array


MAKERS: dict[str, Callable[[Path], Iterator[Pair]]] = {
    "gaussian 1.5": soft(1.5),
    "gaussian 3": soft(3.0),
    "defocus": in_light(lambda rng: degrade.defocus_kernel(3.0)),
    "shake": in_light(lambda rng: degrade.motion_kernel(15.0, 0.1, rng)),
    "gopro": frames("gopro", 3, crop=True),
    "reds": frames("reds", NUM_FRAMES, crop=False),
    "sharp": sharp_photos,
    "screenshot": screenshot,
}
assert tuple(MAKERS) == BLURS


def page() -> str:
    """The text of docs/models.md."""
    rows = json.loads(TABLE.read_text())
    header, *lines = blur_rows()
    rule = ["---"] + ["--:"] * (len(header) - 1)
    table = "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))
    return PAGE.format(
        table=table,
        hardware=rows[-1]["hardware"],
        date=rows[-1]["date"],
        models=" ".join(f'"{r["model"]}"' if " " in r["model"] else r["model"] for r in rows),
        num_photos=NUM_PHOTOS,
        num_frames=NUM_FRAMES,
    )


if __name__ == "__main__":
    main()
