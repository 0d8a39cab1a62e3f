"""The page docs/results.md and its plot, made of the tables of results alone.

What was measured here stands beside what is published, with the data of each and the command.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from jaxdeblur.evaluation.results import PUBLISHED
from jaxdeblur.evaluation.tables import Row
from jaxdeblur.weights import shipped

PROJECT = "https://github.com/MarcelloSimonati/DeepImageDeblurring"
CARD = "../jaxdeblur/pretrained/{}.json"
FETCHED = "fetch.md"
NETWORKS = {
    "carlo_net": "CARLO_NET",
    "kaist_net": "KAIST_NET",
    "atrous_net": "ATROUS_NET",
    "maxim": "MAXIM",
    "nafnet": "NAFNet",
}
PUBLISHED_IMAGES = {"cifar10": "10,000", "gopro": "1,111"}

INTRODUCTION = """\
# Results

What the shipped weights reach, beside what is published. No figure of ours is typed by hand:
`python tools/results.py --page` makes this page of the tables in `results/`, and

```sh
pip install '.[train]'
python tools/results.py --data_dir DIR
```

measures everything anew. `DIR` has the folders `tfds` (CIFAR-10, as TFDS prepares it), `reds`,
`gopro` and `photos`. Ours hold parts of these datasets; each section says which.

How an image is measured: {measures}.
The name of weights leads to their card, which says what they were trained on;
`jaxdeblur models --verbose` prints it.
"""

CIFAR10 = """\
## CIFAR-10: Gaussian blur

Published: the 10,000 test images, each blurred once, sigma uniform in (0, 3) pixels. Here: {images}
of the test images, each blurred {repeats} times, with a sigma from each of {repeats} equal parts of
(0, 3); on few images the chance of a single draw would move the mean by half a decibel. The two
blurred rows tell how alike the data are.

{table}

The published rows are those of Mancini and Simonati,
[Deep Image Deblurring]({project}), University of Bologna, 2020.
The blur left {unchanged} of the images here as they were. The mean PSNR of the blurred images
leaves these out, since theirs is infinite; that of restored images has all but those that the
network left unchanged as well. So the difference of the two means is not what a network gains: the
curves show that.

{commands}

![PSNR over sigma, blurred and restored](results/cifar10.png)

*The mean PSNR in each of the {repeats} parts of the range of sigma, over the part's middle. Parts
with images that the blur left unchanged are not drawn.*

![test images blurred, restored and sharp](results/cifar10.jpg)

*A test image of CIFAR-10 (Krizhevsky, 2009), blurred with several sigmas.*
"""

REDS = """\
## REDS: motion blur in videos

Published: a random 256x256 crop of each validation frame of REDS, which are 1280x720. Here:
{images} whole frames of its validation clips at a quarter of their width and height, 320x180, 10
frames of a clip. That is other data, as the blurred rows show: figures of the one do not compare
with figures of the other. The gain is the PSNR above that of the blurred images.

{table}

The published rows are those of Mancini and Simonati,
[Deep Image Deblurring]({project}), University of Bologna, 2020.
UniA Team and DeblurGAN-v2 (Kupyn et al., ICCV 2019) are what it compares itself with; they are no
part of this package. The rows of MAXIM (Tu et al., CVPR 2022) and NAFNet (Chen et al., ECCV 2022)
are those of their authors, on 300 frames of 1280x720 that were saved as JPEG, with weights trained
on those. Networks of video mode see the previous, the current and the next frame, those of image
mode, such as `atrous-photo` and MAXIM, the current one alone.

{commands}

![frames blurred, restored and sharp](results/reds.jpg)

*The middle of frames of REDS (Nah et al., CVPRW 2019, CC BY 4.0); the PSNR is that of the whole
frame.*
"""

GOPRO = """\
## GoPro: photographs that were really shaken

Published: the 1,111 test pairs of 1280x720. Here: {images} of them, each from a scene of its own.
So the figures of the one do not compare with those of the other; the gain above the blurred images
tells more.

{table}

The published rows are those of Tu et al., "MAXIM", CVPR 2022, and of Chen et al., "Simple Baselines
for Image Restoration" (NAFNet), ECCV 2022. MAXIM's protocol restores whole frames, padded to
multiples of 64 pixels (`--config.tile=off`). Here its tiles are of 256 pixels at most, overlap by
32 and are blended. NAFNet's protocol restores whole frames too, with channel attention over windows
of 384 pixels. NAFNet's official weights can be had by hand only, and were not measured here. Its
authors trained `maxim-gopro` on GoPro's training scenes. `effort` is how many of its three stages
were computed.

No weights of ours were trained on GoPro, but these pairs had a say when the stages of
`atrous-photo` were chosen; the `scales` of its card were chosen on other photographs. A clip's ends
repeat the edge frame; as a scene here has one frame, a network of video mode is given that frame
three times.

{commands}

The whole test set is one command for who has it:

```sh
jaxdeblur fetch maxim-gopro
python eval.py --config configs/maxim_gopro.py --config.data_dir=GoPro --checkpoint maxim-gopro
python eval.py --config configs/nafnet_gopro.py --config.data_dir=GoPro \\
  --checkpoint NAFNet-GoPro-width64.pth --config.tile=off
```

![frames blurred, restored and sharp](results/gopro.jpg)

*The middle of frames of GoPro (Nah et al., CVPR 2017, CC BY 4.0); the PSNR is that of the whole
frame.*
"""

PHOTOS = """\
## Photographs: Gaussian blur

Here: {images} photographs of BSDS500 val, which no weights were trained on, the central 256x256
pixels of each, all blurred with the same sigma. Nothing is published for these. The least gain is
that of the photograph that gains least, or loses.

{table}

{commands}

![a photograph blurred, restored and sharp](results/photos.jpg)

*The middle of a photograph of BSDS500, blurred with each sigma; the PSNR is that of the 256x256
pixels.*
"""

SECTIONS = {"cifar10": CIFAR10, "reds": REDS, "gopro": GOPRO, "photos": PHOTOS}


def render(measured: Mapping[str, Sequence[Row]], flags: Mapping[str, Sequence[str]]) -> str:
    """Returns the page.

    Args:
      measured: the table of each benchmark; a section is left out where it has no rows.
      flags: for each, what eval.py is given to make the first row.
    """
    sections = []
    measures = ""
    for name, text in SECTIONS.items():
        rows = measured[name]
        if not rows:
            continue
        first = rows[0]
        _, measures = first.protocol.split("; ", 1)
        times = repeats(first, rows)
        section = text.format(
            table=by_sigma(rows) if name == "photos" else comparison(name, rows),
            commands=commands(name, flags[name], first.weights),
            images=f"{first.num_images // times:,}",
            repeats=times,
            unchanged=f"{100 * first.unchanged:.1f} %",
            project=PROJECT,
        )
        sections.append(section)
    return "\n".join([INTRODUCTION.format(measures=measures), *sections])


def repeats(whole: Row, rows: Sequence[Row]) -> int:
    """How often an evaluation blurred each image: its parts, 1 without."""
    return max(row.part or 1 for row in rows if row.evaluation == whole.evaluation)


def comparison(name: str, rows: Sequence[Row]) -> str:
    """The published figures, then ours: the blurred images, and what each of the weights makes.

    With the gain above the blurred images, where both means are over all images.
    """
    whole = [row for row in rows if row.part is None]
    lines = []
    published = PUBLISHED.get(name, {})
    for title, figures in published.items():
        network, comma, other = title.partition(",")
        gain = None  # of other data, or where that of the blurred images is not published
        if "blurred" in published and network != "blurred" and not comma:
            gain = figures["psnr"] - published["blurred"]["psnr"]
        title = f"{NETWORKS.get(network, network)}{comma}{other}, published"
        images = PUBLISHED_IMAGES.get(name, "")
        lines.append([title, *cells(figures, gain), images, ""])
    for row in whole:
        times = repeats(row, rows)
        images = f"{row.num_images // times:,}" + (f", {times} times" if times > 1 else "")
        if row is whole[0]:
            lines.append(["blurred, here", *cells(blurred(row), None), images, str(row.date)])
        lines.append([title_of(row), *cells(vars(row), gain_of(row)), images, str(row.date)])
    header = ["", "PSNR dB", "gain dB", "SSIM", "MSE 1e-3", "parameters", "images", "date"]
    if any(row.unchanged for row in rows):
        header, *lines = ([*line[:2], *line[3:]] for line in (header, *lines))
    return markdown(header, lines)


def by_sigma(rows: Sequence[Row]) -> str:
    """For each sigma the blurred images, and what each of the weights makes of them."""
    header = ["sigma, pixels", "", "PSNR dB", "gain dB", "SSIM", "MSE 1e-3", "parameters"]
    header += ["least gain dB", "date"]
    lines = []
    for i, row in enumerate(rows):
        sigma = f"{row.max_sigma:g}"
        if i == 0 or row.max_sigma != rows[i - 1].max_sigma:
            lines.append([sigma, "blurred", *cells(blurred(row), None), "", str(row.date)])
        assert row.least_gain is not None  # of a whole evaluation
        least = f"{row.least_gain:+.2f}"
        lines.append([sigma, title_of(row), *cells(vars(row), gain_of(row)), least, str(row.date)])
    return markdown(header, lines)


def title_of(row: Row) -> str:
    """The network of a row, and the name of its weights, which leads to what is known of them."""
    name, comma, effort = row.weights.partition(",")
    link = CARD.format(name) if name in shipped() else FETCHED
    return f"{NETWORKS[row.model]} ([`{name}`]({link}){comma}{effort})"


def blurred(row: Row) -> dict[str, float]:
    """The figures of a row's blurred images, named as the restored ones'."""
    return {"psnr": row.blurred_psnr, "ssim": row.blurred_ssim, "mse": row.blurred_mse}


def gain_of(row: Row) -> float:
    """The PSNR of the restored images above that of the blurred ones, dB."""
    assert row.psnr is not None
    return row.psnr - row.blurred_psnr


def cells(figures: Mapping[str, Any], gain: float | None) -> list[str]:
    """PSNR, gain, SSIM, MSE and number of parameters as text; "" for what there is not."""
    return [
        f"{figures['psnr']:.2f}",
        "" if gain is None else f"{gain:+.2f}",
        f"{figures['ssim']:.4f}",
        f"{1e3 * figures['mse']:.2f}" if "mse" in figures else "",
        f"{figures['params']:,}" if "params" in figures else "",
    ]


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table, titles aligned to the left, figures to the right."""
    rule = ["---" if title in ("", header[0]) else "--:" for title in header]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def commands(name: str, flags: Sequence[str], weights: str) -> str:
    """The commands that measure all of a benchmark, and its first row."""
    one = f"python eval.py {' '.join(flags)} --checkpoint={weights} --table=results/{name}.csv"
    lines = textwrap.wrap(one, 96, subsequent_indent="  ", break_on_hyphens=False)
    every = f"python tools/results.py --data_dir DIR --only {name}  # every row"
    return "\n".join(["```sh", every, " \\\n".join(lines) + "  # the first", "```"])


def plot(rows: Sequence[Row]) -> Figure:
    """Draws the PSNR over sigma, of the blurred images and of each of the weights.

    Args:
      rows: a table with parts of the range of sigmas; those that have images that the blur left
        unchanged are left out.
    """
    curves: dict[str, list[Row]] = {}
    for row in rows:
        if row.part is not None and not row.unchanged:
            curves.setdefault(row.weights, []).append(row)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for i, (weights, parts) in enumerate(curves.items()):
        sigmas = [(row.min_sigma + row.max_sigma) / 2 for row in parts]
        if i == 0:
            before = [row.blurred_psnr for row in parts]
            axes.plot(sigmas, before, "o--", color="grey", label="blurred")
        axes.plot(sigmas, [row.psnr for row in parts], "o-", label=weights)
    axes.set(xlabel="sigma of the blur, pixels", ylabel="PSNR, dB", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
