"""MAXIM as one writes it in Flax: `nn.Conv`, `nn.Dense` over swapped axes, patches cut out.

Modules have the names of the published ones, so that published checkpoints fit as they are.

Source: Tu et al., MAXIM: Multi-Axis MLP for Image Processing, CVPR 2022 (arXiv:2201.02973), and
https://github.com/google-research/maxim.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

DEPTH = 3
leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.2)

# Of each level, 0 the finest, its features; in the order in which they are concatenated.
Levels = dict[int, jax.Array]


class PlainMaxim(nn.Module):
    """Several U-Nets one after the other, each of which restores the image at several scales.

    Attributes:
      num_features: of the finest level; each coarser one has twice as many.
      num_stages: U-Nets.
      num_groups: blocks in each part of a U-Net.
      num_bottleneck_blocks: blocks at the coarsest size.
      num_scales: sizes at which the image is seen and restored, at most 3.
      effort: how many of the stages are computed, all where it is None.
      dtype: of the arithmetic.
    """

    num_features: int = 32
    num_stages: int = 3
    num_groups: int = 2
    num_bottleneck_blocks: int = 2
    num_scales: int = 3
    effort: int | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, blurred: jax.Array) -> list[list[jax.Array]]:
        """Restores `[B, H, W, 3]`, H and W multiples of 64: of each stage, coarse to fine."""
        batch, height, width, channels = blurred.shape
        images = [
            jax.image.resize(blurred, (batch, height >> i, width >> i, channels), "nearest")
            for i in range(self.num_scales)
        ]
        restored = []
        attended: Levels = {}
        guides: Levels = {}
        for stage in range(self.effort or self.num_stages):
            inputs = self._inputs(stage, images, attended)
            encoded, x = self._encode(stage, inputs, guides)
            skips = self._cross_gate(stage, encoded, x)
            decoded = self._decode(stage, skips, x)
            guides = {i: encoded[i] + decoded[i] for i in encoded}
            outputs, attended = self._outputs(stage, images, decoded)
            restored.append(outputs)
        return restored

    def final(self, blurred: jax.Array) -> jax.Array:
        """The last stage's full-size image alone."""
        return self(blurred)[-1][-1]

    @nn.nowrap
    def _inputs(self, stage: int, images: list[jax.Array], attended: Levels) -> Levels:
        """Features of the image at each scale, gated by those of the stage before."""
        inputs = {}
        for i, image in enumerate(images):
            x = _conv3(self._width(i), self.dtype, f"stage_{stage}_input_conv_{i}")(image)
            if stage > 0:
                name = f"stage_{stage}_input_fuse_sam_{i}"
                x, _ = CrossGating(self._width(i), _size(i), self.dtype, name=name)(x, attended[i])
            inputs[i] = x
        return inputs

    @nn.nowrap
    def _encode(self, stage: int, inputs: Levels, guides: Levels) -> tuple[Levels, jax.Array]:
        """Returns each level's features and the bottleneck's, at an eighth of the size."""
        encoded = {}
        x = inputs[0]
        for i in range(DEPTH):
            x = jnp.concatenate([x, inputs[i]], axis=-1) if i in inputs else x
            name = f"stage_{stage}_encoder_block_{i}"
            block = Encoder(self._width(i), _size(i), self.num_groups, True, self.dtype, name=name)
            encoded[i], x = block(x, guides.get(i))
        for i in range(self.num_bottleneck_blocks):
            name = f"stage_{stage}_global_block_{i}"
            x = Bottleneck(self._width(DEPTH - 1), self.num_groups, self.dtype, name=name)(x)
        return encoded, x

    @nn.nowrap
    def _cross_gate(self, stage: int, encoded: Levels, x: jax.Array) -> Levels:
        """Returns skip features of each level, gated from the coarsest up."""
        skips = {}
        for i in reversed(encoded):
            signal = self._gather(encoded, i)
            name = f"stage_{stage}_cross_gating_block_{i}"
            gate = CrossGating(self._width(i), _size(i), self.dtype, upsample=True, name=name)
            skips[i], x = gate(signal, x)
        return skips

    @nn.nowrap
    def _decode(self, stage: int, skips: Levels, x: jax.Array) -> Levels:
        decoded = {}
        for i in skips:
            signal = self._gather(skips, i)
            name = f"stage_{stage}_decoder_block_{i}"
            block = Decoder(self._width(i), _size(i), self.num_groups, self.dtype, name=name)
            decoded[i] = x = block(x, signal)
        return decoded

    @nn.nowrap
    def _outputs(
        self, stage: int, images: list[jax.Array], decoded: Levels
    ) -> tuple[list[jax.Array], Levels]:
        """Returns the restored images, and the features that the next stage sees."""
        outputs, attended = [], {}
        for i in reversed(range(self.num_scales)):
            if stage < self.num_stages - 1:
                name = f"stage_{stage}_supervised_attention_module_{i}"
                attention = SupervisedAttention(self._width(i), self.dtype, name=name)
                attended[i], output = attention(decoded[i], images[i])
            else:
                conv = _conv3(3, self.dtype, f"stage_{stage}_output_conv_{i}")
                output = conv(decoded[i]).astype(images[i].dtype) + images[i]
            outputs.append(output)
        return outputs, attended

    @nn.nowrap
    def _gather(self, levels: Levels, i: int) -> jax.Array:
        """All levels' features, resized to one's and side by side."""
        size = levels[i].shape[1:3]
        resized = [UpSampleRatio(self._width(i), size, self.dtype)(x) for x in levels.values()]
        return jnp.concatenate(resized, axis=-1)

    @nn.nowrap
    def _width(self, level: int) -> int:
        return self.num_features << level


class UpSampleRatio(nn.Module):
    """A bilinear resizing and a 1x1 convolution; the class's name is part of checkpoints."""

    features: int
    size: tuple[int, int]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.image.resize(x, (x.shape[0], *self.size, x.shape[-1]), "bilinear")
        return _conv1(self.features, self.dtype)(x)


class Encoder(nn.Module):
    """Gated MLPs and attended convolutions by turns, and half the size besides where asked for."""

    features: int
    size: int
    num_groups: int
    downsample: bool
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: jax.Array, guide: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        x = shortcut = _conv1(self.features, self.dtype, "Conv_0")(x)
        for i in range(self.num_groups):
            x = MultiAxisMlp(self.size, self.dtype, name=f"SplitHeadMultiAxisGmlpLayer_{i}")(x)
            x = AttendedConvs(self.dtype, name=f"channel_attention_block_1{i}")(x)
        x = x + shortcut
        if guide is not None:
            gate = CrossGating(self.features, self.size, self.dtype, name="cross_gating_block")
            x, _ = gate(x, guide)
        if not self.downsample:
            return x, None
        down = nn.Conv(self.features, (4, 4), strides=2, dtype=self.dtype, name="Conv_1")
        return x, down(x)


class Decoder(nn.Module):
    """Twice the size, then as the encoder."""

    features: int
    size: int
    num_groups: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array) -> jax.Array:
        x = jnp.concatenate([_double(self.features, self.dtype)(x), skip], axis=-1)
        widths = (self.features, self.size, self.num_groups)
        return Encoder(*widths, False, self.dtype, name="UNetEncoderBlock_0")(x)[0]


class Bottleneck(nn.Module):
    """Gated MLPs and attended channel MLPs by turns."""

    features: int
    num_groups: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = shortcut = _conv1(self.features, self.dtype, "input_proj")(x)
        for i in range(self.num_groups):
            mlp = MultiAxisMlp(_size(DEPTH), self.dtype, name=f"SplitHeadMultiAxisGmlpLayer_{i}")
            x = AttendedMlp(self.dtype, name=f"channel_attention_block_1_{i}")(mlp(x))
        return x + shortcut


class MultiAxisMlp(nn.Module):
    """Half of the channels mixed over a grid, half within blocks, plus the input."""

    size: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        y = nn.LayerNorm(dtype=self.dtype, name="LayerNorm_in")(x)
        y = nn.gelu(_dense(2 * channels, self.dtype, "in_project")(y))
        u, v = jnp.split(y, 2, axis=-1)
        u = GatedMlp("Grid", self.size, self.dtype, name="GridGmlpLayer")(u)
        v = GatedMlp("Block", self.size, self.dtype, name="BlockGmlpLayer")(v)
        y = jnp.concatenate([u, v], axis=-1)
        return x + _dense(channels, self.dtype, "out_project")(y)


class GatedMlp(nn.Module):
    """An MLP with a gate that mixes the pixels of a grid, or those of a block."""

    kind: str
    size: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, height, width, channels = x.shape
        patch, axis = _patches(self.kind, self.size, height, width)
        y = _cut(x, patch)
        y = nn.LayerNorm(dtype=self.dtype, name="LayerNorm")(y)
        y = nn.gelu(_dense(2 * channels, self.dtype, "in_project")(y))
        y = Gate(axis, self.dtype, name=f"{self.kind}GatingUnit")(y)
        y = _dense(channels, self.dtype, "out_project")(y)
        return x + _join(y, patch, height, width)


class Gate(nn.Module):
    """Half of the channels times the other half, mixed along an axis."""

    axis: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        u, v = jnp.split(x, 2, axis=-1)
        v = nn.LayerNorm(dtype=self.dtype, name="intermediate_layernorm")(v)
        return u * (_mix(v, self.axis, self.dtype, "Dense_0") + 1)


class CrossGating(nn.Module):
    """Two signals, each multiplied by weights computed of the other."""

    features: int
    size: int
    dtype: Any = None
    upsample: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        def project(z, axis):
            z = nn.LayerNorm(dtype=self.dtype, name=f"LayerNorm_{axis}")(z)
            return nn.gelu(_dense(self.features, self.dtype, f"in_project_{axis}")(z))

        def weights(z, axis):
            name = f"SplitHeadMultiAxisGating_{axis}"
            return GatingWeights(self.size, self.dtype, name=name)(z)

        if self.upsample:
            y = _double(self.features, self.dtype)(y)
        x = shortcut_x = _conv1(self.features, self.dtype, "Conv_0")(x)
        y = shortcut_y = _conv1(self.features, self.dtype, "Conv_1")(y)
        x, y = project(x, "x"), project(y, "y")
        x, y = x * weights(y, "y"), y * weights(x, "x")
        y = _dense(self.features, self.dtype, "out_project_y")(y) + shortcut_y
        x = _dense(self.features, self.dtype, "out_project_x")(x) + shortcut_x
        return x + y, y


class GatingWeights(nn.Module):
    """As `MultiAxisMlp`, of which only the mixing is left: no gate, no shortcut."""

    size: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, height, width, channels = x.shape
        x = nn.LayerNorm(dtype=self.dtype, name="LayerNorm_in")(x)
        x = nn.gelu(_dense(2 * channels, self.dtype, "in_project")(x))
        halves = []
        for i, (kind, half) in enumerate(zip(("Grid", "Block"), jnp.split(x, 2, -1), strict=True)):
            patch, axis = _patches(kind, self.size, height, width)
            half = _mix(_cut(half, patch), axis, self.dtype, f"Dense_{i}")
            halves.append(_join(half, patch, height, width))
        return _dense(channels, self.dtype, "out_project")(jnp.concatenate(halves, axis=-1))


class AttendedConvs(nn.Module):
    """Two convolutions, attended, plus the input."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        y = nn.LayerNorm(dtype=self.dtype, name="LayerNorm")(x)
        y = leaky_relu(_conv3(features, self.dtype, "conv1")(y))
        y = _conv3(features, self.dtype, "conv2")(y)
        return x + ChannelAttention(self.dtype, name="channel_attention")(y)


class AttendedMlp(nn.Module):
    """An MLP of the channels, attended, plus the input."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm(dtype=self.dtype, name="LayerNorm")(x)
        y = ChannelMlp(self.dtype, name="channel_mixing")(y)
        return x + ChannelAttention(self.dtype, name="channel_attention")(y)


class ChannelMlp(nn.Module):
    """Two dense layers over the channels."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.gelu(_dense(x.shape[-1], self.dtype, "Dense_0")(x))
        return _dense(x.shape[-1], self.dtype, "Dense_1")(x)


class ChannelAttention(nn.Module):
    """Channels weighted by what their means tell."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        y = jnp.mean(x, axis=(1, 2), keepdims=True)
        y = nn.relu(_conv1(features // 4, self.dtype, "Conv_0")(y))
        return x * nn.sigmoid(_conv1(features, self.dtype, "Conv_1")(y))


class SupervisedAttention(nn.Module):
    """A restored image, and features weighted by what it tells."""

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        restored = _conv3(3, self.dtype, "Conv_1")(x).astype(image.dtype) + image
        weights = nn.sigmoid(_conv3(self.features, self.dtype, "Conv_2")(restored))
        return x + _conv3(self.features, self.dtype, "Conv_0")(x) * weights, restored


def _size(level: int) -> int:
    """Pixels along a block's side, and cells along the grid's."""
    return 16 if level < 2 else 8


def _patches(kind: str, size: int, height: int, width: int) -> tuple[tuple[int, int], int]:
    """Returns the patches' height and width, and the axis of the cut image that is mixed."""
    return ((height // size, width // size), -3) if kind == "Grid" else ((size, size), -2)


def _cut(x: jax.Array, patch: tuple[int, int]) -> jax.Array:
    """Cuts `[B, H, W, C]` into patches of h x w pixels, `[B, H/h * W/w, h * w, C]`."""
    (batch, height, width, channels), (h, w) = x.shape, patch
    x = x.reshape(batch, height // h, h, width // w, w, channels)
    return x.swapaxes(2, 3).reshape(batch, -1, h * w, channels)


def _join(x: jax.Array, patch: tuple[int, int], height: int, width: int) -> jax.Array:
    """Undoes `_cut`."""
    (batch, _, _, channels), (h, w) = x.shape, patch
    x = x.reshape(batch, height // h, width // w, h, w, channels)
    return x.swapaxes(2, 3).reshape(batch, height, width, channels)


def _mix(x: jax.Array, axis: int, dtype: Any, name: str) -> jax.Array:
    """A dense layer along an axis that is not the last."""
    x = jnp.swapaxes(x, -1, axis)
    return jnp.swapaxes(_dense(x.shape[-1], dtype, name)(x), -1, axis)


def _dense(features: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(features, dtype=dtype, name=name)


def _conv1(features: int, dtype: Any, name: str | None = None) -> nn.Conv:
    return nn.Conv(features, (1, 1), dtype=dtype, name=name)


def _conv3(features: int, dtype: Any, name: str) -> nn.Conv:
    return nn.Conv(features, (3, 3), dtype=dtype, name=name)


def _double(features: int, dtype: Any) -> nn.ConvTranspose:
    return nn.ConvTranspose(features, (2, 2), (2, 2), dtype=dtype)
