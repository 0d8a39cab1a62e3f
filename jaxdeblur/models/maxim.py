"""MAXIM: U-shaped networks in a row, which mix the pixels of blocks, and of a grid, by matrices.

The parameters have the names and shapes of the published Flax code, so that its checkpoints are
this network's. The arithmetic is arranged anew (`joining`, `mixing`), for what it gives is the same
to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import jax
from flax import linen as nn
from flax.typing import Dtype

from jaxdeblur.errors import InputError
from jaxdeblur.models.joining import (
    Doubled,
    Joined,
    Parameters,
    Part,
    Plain,
    Resized,
    ResizedParameters,
)
from jaxdeblur.models.layers import (
    Conv,
    Dense,
    LayerNorm,
    Pointwise,
    check_input,
    current_frame,
)
from jaxdeblur.models.mixing import GatingWeights, MultiAxisBlock, near_zero

_LEVELS = 3  # of the U, at 1, 1/2 and 1/4 of the size; the bottleneck is at 1/8
_SIDES = (16, 16, 8)  # of blocks and grids at each level; of the bottleneck 8
_REDUCTION = 4  # of the channels inside channel attention

# The compiler's convolutions, on CPUs too: with these many channels they are as quick there as the
# package's own, and take a fraction of the time to compile.
_conv3x3 = functools.partial(Conv, kernel_size=3, own=False)


class ChannelAttention(nn.Module):
    """Each channel times a factor that follows from the means of all."""

    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        channels = x.shape[-1]
        conv = functools.partial(Pointwise, dtype=self.dtype)
        y = nn.relu(conv(channels // _REDUCTION, name="Conv_0")(x.mean((1, 2), keepdims=True)))
        return x * nn.sigmoid(conv(channels, name="Conv_1")(y))


class ConvBlock(nn.Module):
    """Two convolutions and channel attention, added to what came in."""

    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        conv = functools.partial(_conv3x3, x.shape[-1], dtype=self.dtype)
        y = LayerNorm(self.dtype, name="LayerNorm")(x)
        y = nn.leaky_relu(conv(name="conv1")(y), 0.2)
        y = conv(name="conv2")(y)
        return x + ChannelAttention(self.dtype, name="channel_attention")(y)


class DenseBlock(nn.Module):
    """A hidden layer at each pixel and channel attention, added to what came in."""

    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        y = LayerNorm(self.dtype, name="LayerNorm")(x)
        y = Hidden(self.dtype, name="channel_mixing")(y)
        return x + ChannelAttention(self.dtype, name="channel_attention")(y)


class Hidden(nn.Module):
    """A hidden layer of as many channels."""

    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(Dense, x.shape[-1], kernel_init=near_zero, dtype=self.dtype)
        return dense(name="Dense_1")(nn.gelu(dense(name="Dense_0")(x)))


class CrossGating(nn.Module):
    """Two images of features, each gated by weights that follow from the other.

    Attributes:
      features: channels of both.
      side: of blocks and grid.
      doubling: whether the second image is of half the size.
    """

    features: int
    side: int
    doubling: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, first: Sequence[Part], second: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps both to `[B, H, W, features]`: the sum of the two, gated, and the second alone."""
        features = self.features
        dense = functools.partial(Dense, features, dtype=self.dtype)
        part: Part = Plain(second)
        if self.doubling:
            shape = (2, 2, part.channels, features)
            part = Doubled(second, Parameters(shape, name="ConvTranspose_0")())

        def branch(parts, index, name):
            x = Joined(features, self.dtype, name=f"Conv_{index}")(parts)
            y = LayerNorm(self.dtype, name=f"LayerNorm_{name}")(x)
            y = nn.gelu(dense(name=f"in_project_{name}")(y))
            gating = GatingWeights(self.side, self.dtype, name=f"SplitHeadMultiAxisGating_{name}")
            return x, y, gating(y)

        x, x_hidden, x_weights = branch(first, 0, "x")
        y, y_hidden, y_weights = branch([part], 1, "y")
        y = y + dense(name="out_project_y")(y_hidden * x_weights)
        x = x + dense(name="out_project_x")(x_hidden * y_weights)
        return x + y, y


class LevelBlock(nn.Module):
    """The blocks of one level, on the way down and on the way up.

    Attributes:
      features: channels.
      num_groups: pairs of a multi-axis block and a convolution block.
      side: of blocks and grid.
      halving: whether to give the next level's input as well.
    """

    features: int
    num_groups: int
    side: int
    halving: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, parts: Sequence[Part], gate: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Joins parts to `[B, H, W, features]`; a gate of that shape is of an earlier stage.

        Returns:
          The level's features, and, with `halving`, `[B, H/2, W/2, features]`, else the same.
        """
        x = skip = Joined(self.features, self.dtype, name="Conv_0")(parts)
        for i in range(self.num_groups):
            name = f"SplitHeadMultiAxisGmlpLayer_{i}"
            x = MultiAxisBlock(self.side, self.dtype, name=name)(x)
            x = ConvBlock(self.dtype, name=f"channel_attention_block_1{i}")(x)
        x = x + skip
        if gate is not None:
            gating = functools.partial(CrossGating, self.features, self.side, dtype=self.dtype)
            x, _ = gating(name="cross_gating_block")([Plain(x)], gate)
        if not self.halving:
            return x, x
        return x, Conv(self.features, 4, stride=2, dtype=self.dtype, name="Conv_1")(x)


class DecoderBlock(nn.Module):
    """A level on the way up, of the level below and of what skips the U."""

    features: int
    num_groups: int
    side: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, below: jax.Array, skips: Sequence[Part]) -> jax.Array:
        """Maps `[B, H/2, W/2, C]` to `[B, H, W, features]`."""
        shape = (2, 2, below.shape[-1], self.features)
        part = Doubled(below, Parameters(shape, name="ConvTranspose_0")())
        block = functools.partial(LevelBlock, self.features, self.num_groups, self.side)
        return block(dtype=self.dtype, name="UNetEncoderBlock_0")([part, *skips])[0]


class Bottleneck(nn.Module):
    """The blocks of the coarsest level."""

    num_groups: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        x = skip = Pointwise(x.shape[-1], dtype=self.dtype, name="input_proj")(x)
        for i in range(self.num_groups):
            name = f"SplitHeadMultiAxisGmlpLayer_{i}"
            x = MultiAxisBlock(_SIDES[-1], self.dtype, name=name)(x)
            x = DenseBlock(self.dtype, name=f"channel_attention_block_1_{i}")(x)
        return x + skip


class SupervisedAttention(nn.Module):
    """A stage's picture, and the features that it lets through to the next stage."""

    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, blurred: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, H, W, C]`, with `[B, H, W, 3]`, to the same shapes."""
        conv = functools.partial(_conv3x3, dtype=self.dtype)
        features = conv(x.shape[-1], name="Conv_0")(x)
        restored = blurred + conv(3, name="Conv_1")(x).astype(blurred.dtype)
        attention = nn.sigmoid(conv(x.shape[-1], name="Conv_2")(restored).astype(x.dtype))
        return features * attention + x, restored


class Maxim(nn.Module):
    """MAXIM as published (22,212,795 parameters in three stages).

    Each stage is a U of three levels, that gives a picture at 1/4, 1/2 and the whole of the size;
    the later ones start from the features of the one before. The output is not clipped.

    Grid mixing and channel attention see all of an image, so a tile of one is not exactly a part
    of the whole.

    Attributes:
      num_features: channels at full resolution; twice as many at each level below.
      num_stages: U's, one after the other: 1, 2 and 3 are S-1, S-2 and S-3.
      num_groups: pairs of a multi-axis block and a convolution block in each level.
      num_bottleneck_blocks: blocks at 1/8 of the size.
      effort: how many stages to compute; None for all. Each stage's picture is complete, and better
        than the one before.
      dtype: type of the arithmetic; parameters stay float32.

    References:
      Tu et al., "MAXIM: Multi-Axis MLP for Image Processing", CVPR 2022 (arXiv 2201.02973;
      github.com/google-research/maxim).
    """

    size_multiple: ClassVar[int] = 64
    minimum_size: ClassVar[int] = 64
    keeps_size: ClassVar[bool] = False
    reach: ClassVar[None] = None
    tile_size: ClassVar[int] = 256
    tile_overlap: ClassVar[int] = 32

    num_features: int = 32
    num_stages: int = 3
    num_groups: int = 2
    num_bottleneck_blocks: int = 2
    effort: int | None = None
    dtype: Dtype | None = None

    @property
    def bytes_per_pixel(self) -> int:
        """Of temporary arrays, as XLA counts them: 324 MB for 256x256 with 32 features."""
        return 160 * self.num_features

    def __call__(self, blurred: jax.Array, train: bool = False) -> jax.Array:
        """Restores `[B, H, W, 3 or 9]` in [0, 1], H and W multiples of 64, to `[B, H, W, 3]`."""
        return self.outputs(blurred, train)[-1][-1]

    @nn.compact
    def outputs(self, blurred: jax.Array, train: bool = False) -> list[list[jax.Array]]:
        """Restores to the pictures of all stages that are computed, for training.

        Returns:
          For each stage, `[B, H/4, W/4, 3]`, `[B, H/2, W/2, 3]` and `[B, H, W, 3]`.
        """
        del train
        check_input(blurred, "maxim", multiple=self.size_multiple, minimum=self.minimum_size)
        effort = self.num_stages if self.effort is None else self.effort
        if not 1 <= effort <= self.num_stages:
            raise InputError(f"effort = {effort} must be from 1 to {self.num_stages} for maxim")
        # Its parameters are those of all stages.
        stages = self.num_stages if self.is_initializing() else effort
        images = [blurred, blurred[:, 1::2, 1::2], blurred[:, 2::4, 2::4]]  # nearest pixels
        previous, pictures = None, []
        for stage in range(stages):
            restored, previous = self._stage(stage, images, previous)
            pictures.append(restored)
        return pictures

    def _stage(
        self, stage: int, images: list[jax.Array], previous: _Features | None
    ) -> tuple[list[jax.Array], _Features]:
        """One U; returns its pictures, coarse to fine, and what the next stage sees of it."""
        name = f"stage_{stage}"
        widths = [2**level * self.num_features for level in range(_LEVELS)]
        inputs = self._inputs(name, images, previous)
        x, encoded = inputs[0], []
        for level, width in enumerate(widths):
            gate = previous and previous.encoded[level] + previous.decoded[level]
            block = functools.partial(LevelBlock, width, self.num_groups, _SIDES[level], True)
            block = block(self.dtype, name=f"{name}_encoder_block_{level}")
            features, x = block([Plain(x), Plain(inputs[level])], gate)
            encoded.append(features)
        for i in range(self.num_bottleneck_blocks):
            x = Bottleneck(self.num_groups, self.dtype, name=f"{name}_global_block_{i}")(x)

        resizing = iter(range(2 * stage * _LEVELS**2, 2 * (stage + 1) * _LEVELS**2))
        below, skips = x, {}
        for level in reversed(range(_LEVELS)):
            gating = functools.partial(CrossGating, widths[level], _SIDES[level], True)
            gating = gating(self.dtype, name=f"{name}_cross_gating_block_{level}")
            sources = dict(enumerate(encoded))
            skips[level], below = gating(self._resized(sources, level, resizing), below)

        decoded, pictures, attended = {}, [], {}
        for level in reversed(range(_LEVELS)):
            block = functools.partial(DecoderBlock, widths[level], self.num_groups, _SIDES[level])
            block = block(self.dtype, name=f"{name}_decoder_block_{level}")
            x = decoded[level] = block(x, self._resized(skips, level, resizing))
            image = current_frame(images[level])
            if stage < self.num_stages - 1:
                attend = SupervisedAttention(
                    self.dtype, name=f"{name}_supervised_attention_module_{level}"
                )
                attended[level], restored = attend(x, image)
            else:
                conv = _conv3x3(3, dtype=self.dtype, name=f"{name}_output_conv_{level}")
                restored = image + conv(x).astype(image.dtype)
            pictures.append(restored)
        return pictures, _Features(encoded, decoded, attended)

    def _inputs(
        self, name: str, images: list[jax.Array], previous: _Features | None
    ) -> list[jax.Array]:
        """Features of the image at each level's size, those of the stage before merged in."""
        inputs = []
        for level, image in enumerate(images):
            width = 2**level * self.num_features
            conv = _conv3x3(width, dtype=self.dtype, name=f"{name}_input_conv_{level}")
            x = conv(image)
            if previous is not None:
                fuse = functools.partial(CrossGating, width, _SIDES[level], dtype=self.dtype)
                fuse = fuse(name=f"{name}_input_fuse_sam_{level}")
                x, _ = fuse([Plain(x)], previous.attended[level])
            inputs.append(x)
        return inputs

    def _resized(
        self, sources: dict[int, jax.Array], level: int, numbers: Iterator[int]
    ) -> list[Part]:
        """The features of all levels at one of them; `numbers` count the published modules."""
        parts: list[Part] = []
        width = 2**level * self.num_features
        for source, features in sources.items():
            shape = (1, 1, features.shape[-1], width)
            affine = ResizedParameters(shape, name=f"UpSampleRatio_{next(numbers)}")()
            parts.append(Resized(features, 2.0 ** (source - level), affine))
        return parts


class _Features(NamedTuple):
    """What a stage hands on: its features by level, on both ways and behind the attention."""

    encoded: list[jax.Array]
    decoded: dict[int, jax.Array]
    attended: dict[int, jax.Array]
