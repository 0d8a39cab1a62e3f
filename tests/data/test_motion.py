"""Moving cameras, against sums of shifted pictures."""

import numpy as np
import pytest
from PIL import Image

from jaxdeblur.configs import atrous_reds_small
from jaxdeblur.data import datasets, degrade, motion, pipeline
from jaxdeblur.data.clips import source as clip_source
from jaxdeblur.errors import InputError

M = motion.MARGIN


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(height, width):
    return rng().integers(0, 256, (height, width, 3), np.uint8)


def test_light_is_summed_where_the_scene_is():
    light = rng().random((20 + 2 * M, 30 + 2 * M, 3), np.float32)
    places = [
        np.array([[0, 0]]),
        np.array([[0, 0], [3, -5], [M - 1, 1 - M], [-7, 2]]),
        np.array([[0.25, 0]]),
    ]
    still, moved, between = motion.expose(light, places)
    np.testing.assert_allclose(still, light[M:-M, M:-M], atol=1e-5)
    # A scene 3 pixels further down shows, at a pixel, what was 3 above it.
    shifted = [np.roll(light, tuple(place), (0, 1))[M:-M, M:-M] for place in places[1]]
    np.testing.assert_allclose(moved, np.mean(shifted, axis=0), atol=1e-5)
    above = light[M - 1 : -M - 1, M:-M]
    np.testing.assert_allclose(between, 0.75 * still + 0.25 * above, atol=1e-5)


def test_the_camera_goes_on_from_frame_to_frame():
    lengths, shares, beyond = [], [], 0
    for seed in range(200):
        before, during, after = motion.random_exposures(rng(seed))
        # The sharp picture is the middle of the path, not of its mass.
        half = len(during) // 2
        np.testing.assert_allclose(during[half - 1] + during[half], 0, atol=1e-9)
        beyond += max(np.abs(x).max() for x in (before, during, after)) > M
        lengths.append(
            np.linalg.norm(np.diff(np.concatenate([before, during, after]), axis=0), axis=1).sum()
        )
        shares.append(len(during) / motion._POINTS)
    assert 0.5 < min(lengths) < 5
    assert 32 < max(lengths) < 40
    assert 0.55 < min(shares) < 0.7
    assert max(shares) == 1
    assert beyond < 5  # of 200: the quick ones


def test_frames_are_a_picture_again():
    photo = noise(16 + 2 * M, 24 + 2 * M)
    camera = motion.CameraMotion(motion.srgb_response(), brightness=0.1)
    first = camera(photo, 0, rng(3))
    assert first["blurred"].shape == (16, 24, 9)
    assert first["blurred"].dtype == first["sharp"].dtype == np.uint8
    assert abs(first["brightness"]) <= 0.1
    np.testing.assert_array_equal(first["sharp"], photo[M:-M, M:-M])
    again = camera(photo, 0, rng(3))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])


def test_a_grey_wall_stays_as_it_is():
    wall = np.full((8 + 2 * M, 8 + 2 * M, 3), (10, 128, 255), np.uint8)
    sample = motion.CameraMotion(motion.srgb_response(), 0.0)(wall, 0, rng())
    np.testing.assert_array_equal(sample["blurred"], np.tile(sample["sharp"], 3))


def test_srgb_is_the_standard_one():
    levels = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    response = motion.srgb_response()
    np.testing.assert_array_equal(response.to_light(levels), degrade.to_linear(levels))
    np.testing.assert_array_equal(response.to_image(response.to_light(levels)), levels)
    # Half of white's light is level 188.
    assert (response.to_image(np.full((1, 3), 0.5)) == 188).all()
    assert (response.to_image(np.array([[-1.0, 0, 2]])) == [0, 0, 255]).all()


def test_the_response_is_read_blue_first(tmp_path):
    inverse = np.arange(256)[:, None, None] * np.array([1.0, 2.0, 3.0])  # B, G, R
    np.save(tmp_path / "response.npy", inverse)
    response = motion.read_response(tmp_path / "response.npy")
    np.testing.assert_allclose(
        response.to_light(np.array([[10, 10, 10]], np.uint8)), [[30, 20, 10]]
    )


def test_the_response_of_reds_makes_every_level_again(shared_data):
    response = motion.read_response(shared_data / "reds_inverse_crf.npy")
    assert (np.diff(response.light, axis=0) >= 0).all()
    assert response.light[128].max() == pytest.approx(1)  # the unit of its authors
    assert response.light[255].max() < 12  # not the 46 that whatever saturates was given
    levels = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    again = response.to_image(response.to_light(levels)).astype(int)
    assert np.abs(again - levels).max() <= 1


@pytest.mark.parametrize(
    "content", [None, b"no array", np.zeros((256, 3)), np.zeros((256, 1, 3), int)]
)
def test_a_wrong_response_is_named(tmp_path, content):
    path = tmp_path / "response.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(InputError, match=r"camera_response = .*response.npy"):
        motion.read_response(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_samples_is_photographs(share):
    def frame(index, rng):
        return {"frame": index, "brightness": 0.5}

    def photo(index, rng):
        return {"photo": index}

    sample = clip_source.MixedSample(frame, photo, 7, share)
    samples = [sample(5, rng(seed)) for seed in range(500)]
    taken = [x["photo"] for x in samples if "photo" in x]
    assert len(taken) / 500 == pytest.approx(share, abs=0.07)
    assert set(taken) == (set(range(7)) if share else set())
    assert all(x == {"frame": 5, "brightness": 0.5} for x in samples if "photo" not in x)
    assert all(x["brightness"] == 0 for x in samples if "photo" in x)


def test_training_mixes_clips_and_photographs(tmp_path):
    for folder in ("clips/train_sharp/0", "clips/train_blur/0", "photos"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(10):
            # Frames are dark, photographs are light.
            picture = noise(40, 40) // 2 + 128 * (folder == "photos")
            Image.fromarray(picture.astype(np.uint8)).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "clips/val_sharp").symlink_to(tmp_path / "clips/train_sharp")
    (tmp_path / "clips/val_blur").symlink_to(tmp_path / "clips/train_blur")
    config = atrous_reds_small.get_config()
    config.data_dir, config.photo_dir = str(tmp_path / "clips"), str(tmp_path / "photos")
    config.patch_size, config.batch_size = 32, 16
    source = datasets.open_source(config, "train")
    batch = next(pipeline.training_batches(config, source))
    assert batch["blurred"].shape == (16, 32, 32, 9)
    assert batch["sharp"].shape == (16, 32, 32, 3)
    light = batch["sharp"].mean((1, 2, 3)) > 128
    assert 0 < light.sum() < 16
    # A photograph's frames are of the same place, but moved.
    for blurred, sharp in zip(batch["blurred"][light], batch["sharp"][light], strict=True):
        assert abs(blurred.mean() - sharp.mean()) < 12
    config.num_frames, config.degradation = 1, "scene"  # which blurs photographs among them
    config.scene.update(still_share=0.0, gaussian_share=1.0, defocus_share=0.0, drawn_share=0.0)
    single = next(pipeline.training_batches(config, datasets.open_source(config, "train")))
    assert single["blurred"].shape == single["sharp"].shape == (16, 32, 32, 3)
    light = single["sharp"].mean((1, 2, 3)) > 128
    assert 0 < light.sum() < 16
    frames = single["blurred"][~light] - single["sharp"][~light].astype(int)
    photographs = single["blurred"][light] - single["sharp"][light].astype(int)
    assert not frames.any()
    assert photographs.any((1, 2, 3)).all()
    np.testing.assert_array_equal(single["sharp"][~light], batch["sharp"][~light])
    config.patch_size = 64
    with pytest.raises(InputError, match=r"patch_size = 64 is larger than .*40x40 pixels"):
        source.training_sample(config)
