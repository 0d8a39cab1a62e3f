"""Tiling, padding and options, against the networks themselves on whole, hand-padded pictures."""

import functools
import itertools
import logging
import os
import subprocess
import sys
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdeblur import create_model, weights
from jaxdeblur.errors import InputError
from jaxdeblur.models.layers import current_frame
from jaxdeblur.restoring import restore, scales
from jaxdeblur.runtime import startup
from jaxdeblur.weights import Deblurrer

NETWORKS = {
    "atrous_net": {"num_channels": 4, "num_blocks": 1},
    "carlo_net": {"num_filters": 2},
    "kaist_net": {"num_channels": 4, "num_blocks": 1, "num_inner_blocks": 1},
}


quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True, scope="module")
def quickly_compiled():
    """Compiling takes most of the time of these small networks."""
    with pytest.MonkeyPatch.context() as patch:
        apply = quick_jit(lambda module, *arrays: module.apply(*arrays), static_argnums=0)
        patch.setattr(restore, "_apply", lambda *arguments: np.asarray(apply(*arguments)))
        yield


def make(name="atrous_net", channels=3, card=None, **fields):
    module = create_model(name, **{**NETWORKS[name], **fields})
    variables = quick_jit(module.init)(jax.random.key(1), jnp.zeros((1, 64, 64, channels)))
    return Deblurrer(module, variables["params"], {"channels": channels, **(card or {})})


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def whole(deblurrer, picture, size):
    """The network's own result on the picture, reflected up to a size by NumPy."""
    height, width = picture.shape[:2]
    border = ((0, size[0] - height), (0, size[1] - width), (0, 0))
    padded = np.pad(picture, border, mode="reflect")
    restored = restore._apply(deblurrer.module, deblurrer.variables(), padded[None])
    return np.clip(restored[0, :height, :width], 0, 1)


@pytest.mark.parametrize(
    ("channels", "size", "tile"),
    [
        (3, (83, 51), 0),
        (3, (97, 260), 1),
        pytest.param(9, (97, 131), 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("name", "tiles"),
    [("atrous_net", (38, 64)), ("carlo_net", (61, 64)), ("kaist_net", (104, 152))],
)
def test_tiles_make_the_same_picture(name, tiles, channels, size, tile):
    deblurrer = make(name, channels)
    picture = noise(*size, channels)
    multiple = deblurrer.module.size_multiple
    padded = [-(-n // multiple) * multiple for n in size]
    expected = whole(deblurrer, picture, padded)
    for choice in (tiles[tile], 1000, "auto", "off"):
        np.testing.assert_allclose(deblurrer(picture, tile=choice), expected, rtol=0, atol=1e-5)


def test_a_picture_and_a_batch_are_padded_to_the_grid_alone():
    deblurrer = make("kaist_net")
    pictures = noise(3, 130, 119, 3)
    expected = [whole(deblurrer, picture, (136, 120)) for picture in pictures]
    for tile in (104, "auto", "off"):
        np.testing.assert_allclose(deblurrer(pictures, tile=tile), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(deblurrer(pictures[0], tile=tile), expected[0], atol=1e-5)
    on_grid = pictures[:, :128, :112]
    expected = np.clip(quick_jit(deblurrer.module.apply)(deblurrer.variables(), on_grid), 0, 1)
    np.testing.assert_allclose(deblurrer(on_grid), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 2), (1, 300), (257, 255), (1500, 1000)], ids=str)
def test_any_size_is_restored(size):
    deblurrer = make()
    picture = noise(*size, 3)
    restored = deblurrer(picture)
    assert restored.shape == picture.shape
    if size == (1500, 1000):  # the middle of the corner that is last to be covered
        corner = deblurrer(picture[-64:, -64:])
        np.testing.assert_allclose(restored[-44:-20, -44:-20], corner[20:44, 20:44], atol=1e-5)
        return
    padded = [n + n % 2 for n in size]
    np.testing.assert_allclose(restored, whole(deblurrer, picture, padded), rtol=0, atol=1e-5)


def test_wider_networks_get_fewer_pixels():
    narrow, wide = create_model("atrous_net_small"), create_model("atrous_net")
    ratio = restore.pixels_at_once(narrow, 3) / restore.pixels_at_once(wide, 3)
    assert 3.9 < ratio < 4.1
    narrow, wide = create_model("nafnet"), create_model("nafnet_64")
    ratio = restore.pixels_at_once(narrow, 3) / restore.pixels_at_once(wide, 3)
    assert 1.9 < ratio < 2.1


def test_only_networks_of_bounded_tiles_are_compiled_for_speed_alone():
    assert restore.compiler_options(create_model("nafnet")) == startup.quick_compilation_options()
    assert restore.compiler_options(create_model("atrous_net")) == startup.inference_options()


def test_self_ensemble_is_the_mean_over_flips_and_turns():
    deblurrer = make("kaist_net")
    pictures = noise(1, 144, 144, 3)
    apply = functools.partial(restore._apply, deblurrer.module)
    total = 0
    for flip, turns in itertools.product((1, -1), range(4)):
        turned = np.rot90(pictures[:, :, ::flip], turns, (1, 2))
        result = np.rot90(apply(deblurrer.variables(), turned), -turns, (1, 2))
        total = total + result[:, :, ::flip]
    expected = np.clip(total / 8, 0, 1)
    for tile in ("off", 120):
        restored = deblurrer(pictures, self_ensemble=True, tile=tile)
        np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("kaist_net", (41, 60), {}),
        pytest.param("atrous_net", (131, 77), {"scales": (2,)}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_self_ensemble_of_a_turned_picture_is_the_turned_one(name, size, options):
    deblurrer = make(name)
    picture = noise(*size, 3)
    restored = deblurrer(picture, self_ensemble=True, **options)
    for turn in (lambda x: x[:, ::-1], np.flipud, np.rot90, lambda x: np.rot90(x, 3)[::-1]):
        turned = deblurrer(turn(picture), self_ensemble=True, **options)
        np.testing.assert_allclose(turned, turn(restored), rtol=0, atol=2e-5)


def test_strength_mixes():
    deblurrer = make()
    picture = (noise(40, 30, 3) * 255).astype(np.uint8)
    np.testing.assert_array_equal(deblurrer(picture, strength=0), picture)
    as_float = picture / np.float32(255)
    unclipped = quick_jit(deblurrer.module.apply)(deblurrer.variables(), as_float[None])[0]
    expected = np.clip(as_float + 0.25 * (unclipped - as_float), 0, 1)
    restored = deblurrer(as_float, strength=0.25)
    np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5)


def test_the_card_chooses_the_scales_and_a_call_may_choose_others():
    deblurrer = make(card={"scales": [2]})
    picture = noise(140, 140, 3)
    plain = make()
    once = functools.partial(plain, tile="off")
    expected = scales.restore_scales(once, picture, (2,))
    np.testing.assert_allclose(deblurrer(picture), expected, atol=2e-5)
    assert np.abs(deblurrer(picture) - plain(picture)).max() > 1e-3
    np.testing.assert_array_equal(deblurrer(picture, scales=()), plain(picture))
    half = deblurrer(picture, strength=0.5)
    np.testing.assert_allclose(half, picture + 0.5 * (expected - picture), atol=2e-5)
    np.testing.assert_allclose(deblurrer(picture, tile=96), expected, atol=2e-5)
    picture[3, 5] = np.nan
    assert np.isnan(deblurrer(picture)).sum() <= 3 * 256**2
    assert not np.isnan(deblurrer(picture)[135:, 135:]).any()


@pytest.mark.parametrize("wrong", [(1,), (0,), (2.5,), ("4",)])
def test_wrong_scales_are_named(wrong):
    with pytest.raises(InputError, match=r"scales = .* must be whole numbers above 1"):
        make()(noise(8, 8, 3), scales=wrong)
    with pytest.raises(InputError, match="three frames"):
        make(channels=9)(noise(8, 8, 3), scales=(2,))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_the_type_is_kept(dtype):
    deblurrer = make(zero_init=True)  # the identity
    scale = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    picture = (noise(33, 21, 3) * scale).astype(dtype)
    restored = deblurrer(picture)
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, picture)
    on_device = deblurrer(jnp.asarray(picture))
    assert isinstance(on_device, jax.Array)
    np.testing.assert_allclose(on_device, restored, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [3, 9])
def test_strength_0_gives_the_very_picture_back(dtype, channels):
    scale = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    picture = (np.random.default_rng(0).random((17, 12, channels)) * scale).astype(dtype)
    restored = make(channels=channels)(picture, strength=0)
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, current_frame(picture))
    assert not np.shares_memory(restored, picture)


def test_floats_of_256_levels_are_refused():
    with pytest.raises(InputError, match=r"blurred has values from 0 to 255.*divide them by 255"):
        make()(np.linspace(0, 255, 8 * 8 * 3, dtype=np.float32).reshape(8, 8, 3))


def test_empty_batches_stay_empty():
    assert make()(np.zeros((0, 8, 8, 3), np.float32)).shape == (0, 8, 8, 3)
    assert make()(np.zeros((0, 8, 3), np.uint8)).shape == (0, 8, 3)


def test_what_is_not_finite_is_left_as_it_was(caplog):
    deblurrer = make()
    picture = noise(100, 120, 3)
    expected = deblurrer(picture, tile=64)
    picture[10, 10] = np.nan
    with caplog.at_level(logging.WARNING):
        restored = deblurrer(picture, tile=64)
    assert "rows 0 to 46, columns 0 to 46 left as they were" in caplog.text
    assert "not finite" in caplog.text
    np.testing.assert_array_equal(restored[:46, :46], picture[:46, :46])
    np.testing.assert_allclose(restored[60:, 60:], expected[60:, 60:], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("colour_shift", "colour shift 0.200"),
        ("change", "change 0.200"),
        ("overshoot", "overshoot"),
    ],
)
def test_what_the_card_rules_out_is_left_as_it_was(caplog, limit, reason):
    deblurrer = make(zero_init=True, card={"limits": {limit: 0.02}})
    picture = 0.5 + 0.5 * noise(100, 100, 3)
    np.testing.assert_allclose(deblurrer(picture), picture, atol=1e-6)
    assert not caplog.records
    deblurrer.params["difference"]["bias"] = jnp.full(3, 0.2)
    np.testing.assert_array_equal(deblurrer(picture), picture)
    assert reason in caplog.text
    without = Deblurrer(deblurrer.module, deblurrer.params, {"channels": 3})
    np.testing.assert_allclose(without(picture), np.minimum(picture + 0.2, 1), atol=1e-6)


def test_a_clip_is_restored_with_three_frames_in_hand():
    deblurrer = make(channels=9)
    clip = noise(4, 24, 20, 3)
    drawn = []

    def frames():
        for i, frame in enumerate(clip):
            drawn.append(i)
            yield frame

    restored = []
    for i, frame in enumerate(deblurrer.frames(frames())):
        assert drawn[-1] == min(i + 1, 3)
        restored.append(frame)
    for i, frame in enumerate(restored):
        around = [clip[max(i - 1, 0)], clip[i], clip[min(i + 1, 3)]]
        np.testing.assert_array_equal(frame, deblurrer(np.concatenate(around, axis=-1)[None])[0])
    assert len(restored) == 4
    still = deblurrer(clip[:1])  # one picture is a clip that stands still
    np.testing.assert_array_equal(next(deblurrer.frames([clip[0]])), still[0])
    assert list(deblurrer.frames([])) == []
    by_image = make()
    for frame, expected in zip(by_image.frames(clip, tile="off"), clip, strict=True):
        np.testing.assert_array_equal(frame, by_image(expected[None])[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": "big"}, "tile = 'big' must be 'auto', 'off' or a number"),
        ({"tile": 0}, "tile = 0"),
        ({"tile": 30}, "tile = 30 is too small for AtrousNet.*18 and 18 pixels; 38 at least"),
        ({"strength": 1.5}, "strength = 1.5 must be between 0 and 1"),
        ({"strength": float("nan")}, "strength = nan"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        make()(noise(300, 300, 3), **options)


@pytest.mark.parametrize(
    ("size", "tile", "calls", "share"),
    [
        ((150, 80), 64, 5, (1, 64, 64, 3)),  # 10 tiles, two at once
        ((40, 120), 64, 3, (1, 40, 32, 3)),
        ((256, 256), "auto", 1, (1, 256, 128, 3)),
        # 31 columns are no share; the fourth tile is a copy.
        pytest.param((40, 110), 62, 2, (1, 40, 62, 3), marks=pytest.mark.slow),
    ],
    ids=["tiles", "columns", "one tile", "too narrow for columns"],
)
def test_devices_have_tiles_or_columns(tmp_path, size, tile, calls, share):
    picture = noise(*size, 3)
    deblurrer = make()
    weights.save(tmp_path / "net.safetensors", deblurrer)
    np.save(tmp_path / "picture.npy", picture)
    script = f"""
import jax, numpy as np
from jaxdeblur import load
from jaxdeblur.restoring import restore
assert jax.local_device_count() == 2
jitted, seen = restore._jitted, []
def spy(apply, *options):
    def call(module, variables, placed):
        seen.append([shard.data.shape for shard in placed.addressable_shards])
        return jitted(apply, *options)(module, variables, placed)
    return call
restore._jitted = spy
restored = load("net.safetensors")(np.load("picture.npy"), tile={tile!r})
assert seen == [[{share}] * 2] * {calls}, seen
np.save("restored.npy", restored)
"""
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    expected = deblurrer(picture, tile=tile)
    np.testing.assert_allclose(np.load(tmp_path / "restored.npy"), expected, rtol=0, atol=1e-5)


# Networks that see all of their input, whose tiles overlap and are blended.


class Whole(nn.Module):
    """Sees all it is given, and adds to it a constant, a share of its mean, and a ramp."""

    plus: float = 0.0
    of_mean: float = 0.0
    ramp: float = 0.0  # from the left to the right

    size_multiple: ClassVar[int] = 8
    minimum_size: ClassVar[int] = 8
    keeps_size: ClassVar[bool] = False
    reach: ClassVar[None] = None
    tile_size: ClassVar[int] = 64
    tile_overlap: ClassVar[int] = 16
    bytes_per_pixel: ClassVar[int] = 100

    @nn.compact
    def __call__(self, blurred, train=False):
        picture = current_frame(blurred)
        mean = picture.mean((1, 2, 3), keepdims=True)
        ramp = jnp.linspace(0, self.ramp, picture.shape[2])[:, None]
        return picture + self.plus + self.of_mean * mean + ramp


def make_whole(card=None, **fields):
    return Deblurrer(Whole(**fields), {}, {"channels": 3, **(card or {})})


def chequered(height, width, mean):
    """Not flat, which would be left as it is, but of one mean everywhere."""
    rows, columns = np.mgrid[:height, :width]
    squares = mean + 0.08 * (2 * ((rows + columns) % 2) - 1)
    return np.repeat(squares[..., None], 3, axis=-1).astype(np.float32)


def of_type(picture, dtype):
    scale = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    return (picture * scale).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("size", [(1, 1), (5, 150), (150, 7), (130, 97), (64, 65)], ids=str)
def test_blended_tiles_of_the_picture_are_the_picture(size, dtype):
    picture = of_type(noise(*size, 3), dtype)
    deblurrer = make_whole()
    for tile in (24, 30, 500, "auto", "off"):
        restored = deblurrer(picture, tile=tile)
        assert restored.dtype == dtype
        rounding = 0 if np.issubdtype(dtype, np.integer) else 1e-6
        np.testing.assert_allclose(restored, picture, rtol=0, atol=rounding)


def test_blended_tiles_brighten_as_the_network_does():
    picture = noise(130, 97, 3)
    deblurrer = make_whole(plus=0.1)
    for options, by in (({}, 0.1), ({"strength": 0.25}, 0.025), ({"strength": 0}, 0)):
        for tile in (24, "auto"):
            restored = deblurrer(picture, tile=tile, **options)
            np.testing.assert_allclose(restored, np.clip(picture + by, 0, 1), rtol=0, atol=1e-6)


def test_two_tiles_are_blended_as_by_hand():
    # Tiles of 8 columns from 0 and from 4, whose weights fall off over the last 2 pixels.
    picture = noise(8, 12, 3) / 2
    left = np.array([1, 1, 1, 1, 1, 1, 0.75, 0.25, 0, 0, 0, 0])
    share = left / (left + left[::-1])
    means = picture[:, :8].mean(), picture[:, 4:].mean()
    blended = share * means[0] + (1 - share) * means[1]
    expected = picture + 0.5 * blended[:, None]
    restored = make_whole(of_mean=0.5)(picture, tile=8)
    np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-6)
    # Without tiles: padded by reflection to the grid alone.
    padded = np.pad(picture, ((0, 0), (0, 4), (0, 0)), mode="reflect")
    whole = make_whole(of_mean=0.5)(picture, tile="off")
    np.testing.assert_allclose(whole, picture + 0.5 * padded.mean(), rtol=0, atol=1e-6)


def test_tiles_of_other_levels_meet_without_a_jump():
    picture = chequered(150, 200, 0.1)
    picture[:, 100:] += 0.5
    picture[75:, :100] += 0.5
    change = make_whole(of_mean=0.5)(picture) - picture
    assert np.ptp(change) > 0.1  # so much would a jump be
    for axis in (0, 1):
        # Levels differ by 0.25 at most, and are spread over 16 pixels.
        assert np.abs(np.diff(change, axis=axis)).max() <= 0.25 / 16 + 1e-6


def test_blended_tiles_of_a_batch_are_those_of_its_pictures(monkeypatch):
    pictures = noise(3, 70, 90, 3) / 2
    deblurrer = make_whole(of_mean=0.5, ramp=0.2)
    expected = [deblurrer(picture) for picture in pictures]
    np.testing.assert_allclose(deblurrer(pictures), expected, rtol=0, atol=1e-6)
    shapes = []
    apply = restore._apply

    def spy(module, variables, blurred):
        shapes.append(blurred.shape)
        return apply(module, variables, blurred)

    monkeypatch.setattr(restore, "_apply", spy)
    monkeypatch.setattr(restore, "pixels_at_once", lambda module, channels: 5000)
    # Tiles of 48x56 pixels, one at a time; 12 of them, since none may have more than 64 a side.
    deblurrer(pictures)
    assert shapes == [(1, 48, 56, 3)] * 12
    shapes.clear()
    monkeypatch.setattr(restore, "pixels_at_once", lambda module, channels: 1000)
    np.testing.assert_allclose(make_whole(plus=0.2)(pictures), pictures + 0.2, rtol=0, atol=1e-6)
    assert all(np.prod(shape[:3]) <= 1000 for shape in shapes)


@pytest.mark.parametrize("size", [(32, 104), (104, 32)], ids=str)
def test_the_self_ensemble_turns_tiles_that_are_no_squares(size):
    picture = noise(*size, 3) / 2
    deblurrer = make_whole(ramp=0.2)
    once = deblurrer(picture, tile="off") - picture
    assert np.ptp(once) > 0.15
    # A ramp, flipped and turned, is its middle on average.
    for tile in ("off", "auto"):
        restored = deblurrer(picture, self_ensemble=True, tile=tile)
        np.testing.assert_allclose(restored, picture + 0.1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_blended_tile_that_is_not_finite_is_left_as_it_was(caplog, dtype):
    picture = (noise(64, 150, 3) / 2).astype(dtype)
    picture[20, 10] = np.nan
    with caplog.at_level(logging.WARNING):
        restored = make_whole(of_mean=0.5)(picture)
    assert restored.dtype == dtype
    # Three tiles of 64 columns, from 0, 43 and 86.
    assert "rows 0 to 64, columns 0 to 64 left as they were: the network's output" in caplog.text
    assert np.isnan(restored).sum() == 3
    np.testing.assert_array_equal(restored[:, :43], picture[:, :43])
    means = [picture[:, start : start + 64].astype(np.float32).mean() for start in (43, 86)]
    alone = slice(64, 86)  # the second tile alone
    expected = picture[:, alone] + 0.5 * means[0]
    np.testing.assert_allclose(restored[:, alone], expected, rtol=0, atol=1e-3)
    between = (restored - picture)[:, 43:64].astype(np.float32).mean((0, 2))
    assert (np.diff(between) > -1e-3).all()
    assert between[0] < 0.02 < 0.4 * means[0] < between[-1]


def test_a_blended_tile_that_the_card_rules_out_is_left_as_it_was(caplog):
    picture = chequered(64, 150, 0.1)
    picture[:, 86:] += 0.5  # the last tile
    restored = make_whole({"limits": {"change": 0.2}}, of_mean=0.5)(picture)
    assert "columns 86 to 150 left as they were: change 0.300, more than 0.200" in caplog.text
    np.testing.assert_array_equal(restored[:, 107:], picture[:, 107:])
    np.testing.assert_allclose(restored[:, :43], picture[:, :43] + 0.05, atol=1e-6)


def test_tiles_that_are_blended_are_told(caplog):
    deblurrer = make_whole()
    with caplog.at_level(logging.INFO, "jaxdeblur"):
        deblurrer(noise(60, 60, 3))  # one tile
        deblurrer(noise(100, 200, 3))
    told = [record.getMessage() for record in caplog.records]
    assert told == ["8 tiles of 64x64 pixels, blended where they overlap"]


@pytest.mark.parametrize("tile", [1, 3])
def test_tiles_may_be_as_small_as_the_grid(tile):
    module = create_model("nafnet", width=4, encoder_blocks=(1,), decoder_blocks=(1,))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes["params"])
    picture = (noise(9, 7, 3) * 255).astype(np.uint8)
    restored = Deblurrer(module, params, {"channels": 3})(picture, tile=tile)
    np.testing.assert_array_equal(restored, picture)
