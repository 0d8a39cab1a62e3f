"""What a source of data is: images or frames, of which training and evaluation take samples."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxdeblur.errors import InputError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# What `blur.make_pair` takes, of one image: sharp uint8 `[P, P, 3]` with sigma, or with blurred.
Sample = dict[str, np.ndarray]

TrainingSample = Callable[[int, np.random.Generator], Sample]  # of an image's number
EvaluationSample = Callable[[int, int], Sample]  # of an image's number and a repeat's


class Source(Protocol):
    """One split of a dataset: images or frames in a fixed order.

    Attributes:
      num_frames: blurred frames that a network sees: 1, or 3 (previous, current and next).
      name: what to call the source in messages: it says where the data lie.
      title: what to call it in tables of results: it does not.
      labels: what to call each image.
    """

    num_frames: int
    name: str
    title: str
    labels: list[str]

    def __len__(self) -> int: ...

    def smallest_size(self) -> tuple[int, int, str]:
        """Height and width of the image with the shortest side, in pixels, and its name."""
        ...

    def training_sample(self, config: ConfigDict) -> TrainingSample:
        """Returns the function that makes a random sample of an image, as configured."""
        ...

    def evaluation_sample(self, config: ConfigDict) -> EvaluationSample:
        """Returns the function that makes the one sample of an image and a repeat."""
        ...

    def whole_sample(self, index: int) -> Sample:
        """A whole image, blurred and sharp; of sources that have whole images."""
        ...

    def protocol(self, config: ConfigDict) -> str:
        """What an evaluation measures of the images, in words."""
        ...


def check_fits(source: Source, patch_size: int, key: str) -> None:
    """Raises InputError, naming the configuration's `key`, if a patch is larger than an image."""
    height, width, name = source.smallest_size()
    if patch_size > min(height, width):
        raise InputError(f"{key} = {patch_size} is larger than {name} ({height}x{width} pixels)")


def fingerprint(source: Source) -> dict[str, Any]:
    """What tells data from others: `images`, their number, and `sha256`, of names and sizes.

    A source whose files may be others of the same names has `sizes()`, whole numbers that are then
    others too.
    """
    sizes: Callable[[], list[int]] = getattr(source, "sizes", list)
    told = json.dumps([source.labels, sizes()])
    return {"images": len(source), "sha256": hashlib.sha256(told.encode()).hexdigest()}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of source, of which `config.dataset` is the name.

    Attributes:
      open: opens the split "train", "val" or "test" as configured; InputError where there is none.
      has_whole: whether whole images can be evaluated (`config.eval_patch_size` of 0).
      lies_in: whether a folder, or an address, looks as if it held one.
    """

    open: Callable[[ConfigDict, str], Source]
    has_whole: bool = False
    lies_in: Callable[[str], bool] = lambda folder: False
