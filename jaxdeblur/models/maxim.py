"""MAXIM: U-shaped networks in a row, which mix the pixels of blocks, and of a grid, by matrices.

The parameters have the names and shapes of the published Flax code, so that its checkpoints are
this network's. The arithmetic is arranged anew, for what it gives is the same to rounding:

- pixels that are mixed lie along the first axis, so that mixing is one matrix product;
- maps that follow one another without anything between are multiplied into one beforehand;
- a map commutes with a change of size, and is applied where there are fewer pixels;
- what would be joined along the channels and then mapped is mapped in parts and added.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from jaxdeblur.errors import InputError
from jaxdeblur.models.layers import (
    Conv,
    Dense,
    Layer,
    LayerNorm,
    Pointwise,
    check_input,
    current_frame,
    parameter,
    resize_linear,
)

_LEVELS = 3  # of the U, at 1, 1/2 and 1/4 of the size; the bottleneck is at 1/8
_SIDES = (16, 16, 8)  # of blocks and grids at each level; of the bottleneck 8
_REDUCTION = 4  # of the channels inside channel attention

_lecun = nn.initializers.lecun_normal()
_near_zero = nn.initializers.normal(0.02)

# The compiler's convolutions, on CPUs too: with these many channels they are as quick there as the
# package's own, and take a fraction of the time to compile.
_conv3x3 = functools.partial(Conv, kernel_size=3, own=False)


class Affine(NamedTuple):
    """A map of channels, `x @ kernel + bias`."""

    kernel: jax.Array
    bias: jax.Array

    def then(self, kernel: jax.Array) -> Affine:
        """This map and a product after it, as one."""
        return Affine(self.kernel @ kernel, self.bias @ kernel)

    def of(self, x: jax.Array) -> jax.Array:
        """The map of features, in their type."""
        kernel, bias = (part.astype(x.dtype) for part in self)
        return x @ kernel + bias


def affine_parameters(
    module: nn.Module,
    shape: tuple[int, ...],
    kernel_init: Initializer = _lecun,
    bias_init: Initializer = nn.initializers.zeros,
) -> Affine:
    """A module's parameters `kernel`, of that shape, and `bias`."""
    kernel = parameter(module, "kernel", kernel_init, shape)
    return Affine(kernel, parameter(module, "bias", bias_init, shape[-1:]))


class Parameters(nn.Module):
    """The parameters of a map, for whoever applies it."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> Affine:
        return affine_parameters(self, self.shape)


class ResizedParameters(nn.Module):
    """`Parameters` under the name that the published module gives them, `Conv_0`."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> Affine:
        kernel, bias = Parameters(self.shape, name="Conv_0")()
        return Affine(kernel[0, 0], bias)


class Plain(NamedTuple):
    """Features of a level's own size, `[B, H, W, C]`."""

    features: jax.Array

    @property
    def channels(self) -> int:
        return self.features.shape[-1]

    def mapped(self, kernel: jax.Array) -> jax.Array:
        """The features' product with `[C, F]`."""
        return self.features @ kernel.astype(self.features.dtype)

    def products(self, pixels: int) -> int:
        """How many it takes to make the part, at so many pixels."""
        del pixels
        return 0


class Resized(NamedTuple):
    """Features of another level, brought to a level's size and mapped.

    Attributes:
      features: `[B, H, W, C]`.
      scale: by which the size changes, 4 to 1/4.
      map: of the channels.
    """

    features: jax.Array
    scale: float
    map: Affine

    @property
    def channels(self) -> int:
        return self.map.bias.shape[0]

    def mapped(self, kernel: jax.Array) -> jax.Array:
        """The product with `[C, F]`, where there are fewer pixels."""
        affine = self.map.then(kernel)
        if self.scale < 1:
            return affine.of(resize_linear(self.features, self.scale))
        return resize_linear(affine.of(self.features), self.scale)

    def products(self, pixels: int) -> int:
        """See `Plain`."""
        return self.map.kernel.size * pixels


class Doubled(NamedTuple):
    """Features of the level below, `[B, H, W, C]`, and the 2x2 kernel that doubles their size."""

    features: jax.Array
    map: Affine

    @property
    def channels(self) -> int:
        return self.map.bias.shape[0]

    def mapped(self, kernel: jax.Array) -> jax.Array:
        """The product with `[C, F]`, of four pixels at once."""
        x, affine = self.features, self.map.then(kernel)
        batch, height, width, _ = x.shape
        # Flax has the pixels of a transposed convolution's kernel in the reverse order.
        merged = affine.kernel[::-1, ::-1].transpose(2, 0, 1, 3)
        y = x @ merged.reshape(merged.shape[0], -1).astype(x.dtype)
        y = y.reshape(batch, height, width, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
        return y.reshape(batch, 2 * height, 2 * width, -1) + affine.bias.astype(x.dtype)

    def products(self, pixels: int) -> int:
        """See `Plain`; each number of the kernel meets every pixel of the level below."""
        return self.map.kernel.size * pixels // 4


Part = Plain | Resized | Doubled


class Joined(Layer):
    """`concatenate(parts) @ kernel + bias`, as a sum over the parts."""

    features: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, parts: Sequence[Part]) -> jax.Array:
        """Maps parts of a size to `[B, H, W, features]`."""
        ends = list(itertools.accumulate(part.channels for part in parts))
        kernel, bias = affine_parameters(self, (1, 1, ends[-1], self.features))
        kernels = jnp.split(kernel[0, 0], ends[:-1])
        products = [part.mapped(kernel) for part, kernel in zip(parts, kernels, strict=True)]
        total = functools.reduce(operator.add, products)
        return total + bias.astype(total.dtype)

    def products(self, arguments: tuple[Any, ...], y: jax.Array) -> int:
        """As published: those of the parts' own maps, and of the map of all of them."""
        (parts,) = arguments
        pixels = y.size // y.shape[-1]
        own = sum(part.products(pixels) for part in parts)
        return own + self.variables["params"]["kernel"].size * pixels


Tokens = Literal["grid", "block"]


class Layout(NamedTuple):
    """Which pixels are mixed with each other, and how they are brought to the first axis.

    Attributes:
      tokens: "block": the pixels of each square block of `side` pixels; "grid": those at the same
        place in each of `side` by `side` cells, which the image is divided into.
      side: 8 or 16.
    """

    tokens: Tokens
    side: int

    def split(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[side * side, B * H * W / (side * side), C]`."""
        batch, height, width, channels = x.shape
        x = x.reshape(batch, *self._cells(height), *self._cells(width), channels)
        first, second = (1, 3) if self.tokens == "grid" else (2, 4)
        rest = (2, 4) if self.tokens == "grid" else (1, 3)
        return x.transpose(first, second, 0, *rest, 5).reshape(self.side**2, -1, channels)

    def join(self, tokens: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The inverse of `split`, for an image `[B, H, W, ...]` of that shape."""
        batch, height, width = shape[:3]
        (a, b), (c, d) = self._cells(height), self._cells(width)
        if self.tokens == "grid":
            x = tokens.reshape(a, c, batch, b, d, -1).transpose(2, 0, 3, 1, 4, 5)
        else:
            x = tokens.reshape(b, d, batch, a, c, -1).transpose(2, 3, 0, 4, 1, 5)
        return x.reshape(batch, height, width, -1)

    def _cells(self, length: int) -> tuple[int, int]:
        many = length // self.side
        return (self.side, many) if self.tokens == "grid" else (many, self.side)


class Mixing(Layer):
    """Makes each token a sum of all."""

    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Multiplies tokens `[T, M, C]` by `[T, T]`."""
        count = tokens.shape[0]
        affine = affine_parameters(self, (count, count), _near_zero, self.bias_init)
        tokens, kernel, bias = promote_dtype(tokens, *affine, dtype=self.dtype)
        # Turned beforehand: on a CPU, XLA's product with a turned first factor is slow.
        turned = jax.lax.optimization_barrier(kernel.T)
        return (turned @ tokens.reshape(count, -1)).reshape(tokens.shape) + bias[:, None, None]

    def products(self, arguments: tuple[Any, ...], y: jax.Array) -> int:
        """See `Layer`; each number of the kernel meets all but the first axis."""
        return y.shape[0] * y.size


class Halves(Layer):
    """`split(x @ kernel + bias)`, each half by itself: nothing is taken apart afterwards."""

    features: int
    kernel_init: Initializer = _lecun
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps `[..., C]` to twice `[..., features]`."""
        affine = affine_parameters(self, (x.shape[-1], 2 * self.features), self.kernel_init)
        x, kernel, bias = promote_dtype(x, *affine, dtype=self.dtype)
        first, second = zip(jnp.split(kernel, 2, -1), jnp.split(bias, 2), strict=True)
        return Affine(*first).of(x), Affine(*second).of(x)

    def products(self, arguments: tuple[Any, ...], y: Any) -> int:
        """See `Layer`; the two halves together."""
        return super().products(arguments, y[0])


class Rejoined(Layer):
    """`concatenate([first, second]) @ kernel + bias`, as a sum of two products."""

    features: int
    kernel_init: Initializer = _lecun
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, first: jax.Array, second: jax.Array) -> jax.Array:
        """Maps twice `[..., C]` to `[..., features]`."""
        affine = affine_parameters(self, (2 * first.shape[-1], self.features), self.kernel_init)
        first, second, kernel, bias = promote_dtype(first, second, *affine, dtype=self.dtype)
        upper, lower = jnp.split(kernel, 2)
        return first @ upper + second @ lower + bias


class GatingUnit(nn.Module):
    """Features, times others whose pixels are mixed."""

    layout: Layout
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, kept: jax.Array, mixed: jax.Array) -> jax.Array:
        """Maps twice `[B, H, W, C]` to the same shape."""
        mixed = LayerNorm(self.dtype, name="intermediate_layernorm")(mixed)
        mixed = Mixing(dtype=self.dtype, name="Dense_0")(self.layout.split(mixed))
        return kept * (self.layout.join(mixed, kept.shape) + 1)


class GatedMlp(nn.Module):
    """The gated MLP over the pixels of blocks or of a grid, added to what came in."""

    layout: Layout
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        channels = x.shape[-1]
        options = {"kernel_init": _near_zero, "dtype": self.dtype}
        y = LayerNorm(self.dtype, name="LayerNorm")(x)
        kept, mixed = map(nn.gelu, Halves(channels, **options, name="in_project")(y))
        unit = f"{self.layout.tokens.capitalize()}GatingUnit"
        y = GatingUnit(self.layout, self.dtype, name=unit)(kept, mixed)
        return x + Dense(channels, **options, name="out_project")(y)


class MultiAxisBlock(nn.Module):
    """Half of the channels mixed over a grid, half within blocks, added to what came in."""

    side: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        channels = x.shape[-1]
        options = {"kernel_init": _near_zero, "dtype": self.dtype}
        y = LayerNorm(self.dtype, name="LayerNorm_in")(x)
        far, near = map(nn.gelu, Halves(channels, **options, name="in_project")(y))
        far = GatedMlp(Layout("grid", self.side), self.dtype, name="GridGmlpLayer")(far)
        near = GatedMlp(Layout("block", self.side), self.dtype, name="BlockGmlpLayer")(near)
        return x + Rejoined(channels, **options, name="out_project")(far, near)


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
        dense = functools.partial(Dense, x.shape[-1], kernel_init=_near_zero, dtype=self.dtype)
        return dense(name="Dense_1")(nn.gelu(dense(name="Dense_0")(x)))


class GatingWeights(nn.Module):
    """Weights for every pixel and channel, from pixels mixed over a grid and within blocks."""

    side: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        channels = x.shape[-1]
        y = LayerNorm(self.dtype, name="LayerNorm_in")(x)
        halves = map(nn.gelu, Halves(channels, dtype=self.dtype, name="in_project")(y))
        mixed = []
        for i, (half, tokens) in enumerate(zip(halves, ("grid", "block"), strict=True)):
            layout = Layout(tokens, self.side)
            mixing = Mixing(nn.initializers.ones, self.dtype, name=f"Dense_{i}")
            mixed.append(layout.join(mixing(layout.split(half)), x.shape))
        return Rejoined(channels, dtype=self.dtype, name="out_project")(*mixed)


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
    tile_size: ClassVar[int] = 512
    tile_overlap: ClassVar[int] = 64

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
