import logging

import numpy as np
import pytest
from PIL import Image

from jaxdeblur.data import photos
from jaxdeblur.errors import InputError


def write(path, height=12, width=16, seed=0, mode="RGB", **options):
    """Saves a random image; returns what a reader must get of a lossless one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return pixels


def warnings_of(caplog, name):
    records = [r for r in caplog.records if r.levelno >= logging.WARNING]
    return [r.getMessage() for r in records if name in r.getMessage()]


def test_subfolders_are_the_splits(tmp_path):
    for split in ("train", "val", "test"):
        for i in range(2):
            write(tmp_path / split / "deeper" / f"{split}_{i}.png")
    for split in ("train", "val", "test"):
        source = photos.photo_folder(tmp_path, split)
        assert source.labels == [f"{split}_0.png", f"{split}_1.png"]
        assert len(source) == 2


def test_without_a_test_folder_val_is_the_test_split(tmp_path):
    write(tmp_path / "train" / "a.png")
    write(tmp_path / "val" / "b.png")
    assert photos.photo_folder(tmp_path, "test").labels == ["b.png"]


def test_flat_folder_holds_out_every_tenth_file(tmp_path):
    names = [f"{i:02d}.png" for i in range(23)]
    for name in names:
        write(tmp_path / name)
    held_out = [names[9], names[19]]
    assert photos.photo_folder(tmp_path, "val").labels == held_out
    assert photos.photo_folder(tmp_path, "test").labels == held_out
    training = photos.photo_folder(str(tmp_path), "train").labels
    assert training == [name for name in names if name not in held_out]


def test_only_visible_image_files_are_found_in_sorted_order(tmp_path):
    write(tmp_path / "train" / "b.PNG")
    write(tmp_path / "train" / "a.jpeg")
    write(tmp_path / "train" / "c" / "0.tiff")
    write(tmp_path / "train" / ".hidden.png")
    (tmp_path / "train" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "folder.png").mkdir()
    assert photos.photo_folder(tmp_path, "train").labels == ["a.jpeg", "b.PNG", "0.tiff"]


def test_photographs_are_rgb_arrays_of_any_size(tmp_path):
    first = write(tmp_path / "a.png", 12, 16, seed=1)
    second = write(tmp_path / "b.png", 30, 9, seed=2)
    source = photos.Photos([tmp_path / "a.png", tmp_path / "b.png"], "two")
    for image, expected in ((source[0], first), (source[1], second)):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected)
    assert source.smallest_size() == (30, 9, str(tmp_path / "b.png"))


def test_exif_orientation_turns_the_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise to show
    pixels = write(tmp_path / "turned.png", 12, 16, exif=exif)
    source = photos.Photos([tmp_path / "turned.png"], "one")
    np.testing.assert_array_equal(source[0], np.rot90(pixels, -1))
    assert source.smallest_size()[:2] == (16, 12)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    grey = np.tile(np.array([[0, 255]], np.uint8), (4, 3))
    picture = Image.fromarray(np.stack([grey] * 3, axis=-1))
    picture.convert(mode).save(tmp_path / f"picture.{suffix}")
    image = photos.Photos([tmp_path / f"picture.{suffix}"], "one")[0]
    np.testing.assert_array_equal(image, np.asarray(picture))


def test_sixteen_bit_grey_keeps_its_contrast(tmp_path):
    levels = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    image = photos.Photos([tmp_path / "deep.png"], "one")[0]
    expected = np.repeat((levels / 257)[..., None], 3, axis=-1)
    np.testing.assert_allclose(image, expected, atol=1)


def test_text_named_as_an_image_is_left_out_and_said_once(tmp_path, caplog):
    pixels = write(tmp_path / "train" / "good.png")
    (tmp_path / "train" / "bad.jpg").write_text("this is no photograph")
    source = photos.photo_folder(tmp_path, "train")
    assert source.labels == ["good.png"]
    np.testing.assert_array_equal(source[0], pixels)
    assert len(warnings_of(caplog, "bad.jpg")) == 1


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_next_photograph_takes_the_place_of_a_damaged_one_said_once(tmp_path, caplog):
    first = write(tmp_path / "0.png", seed=1)
    write(tmp_path / "1.jpg", 64, 64, seed=2)
    truncate(tmp_path / "1.jpg")
    last = write(tmp_path / "2.png", seed=3)
    source = photos.Photos([tmp_path / f for f in ("0.png", "1.jpg", "2.png")], "three")
    assert len(source) == 3
    for _ in range(3):
        np.testing.assert_array_equal(source[0], first)
        np.testing.assert_array_equal(source[1], last)
        np.testing.assert_array_equal(source[2], last)
    assert len(warnings_of(caplog, "1.jpg")) == 1


def test_first_photograph_takes_the_place_of_a_damaged_last_one(tmp_path, caplog):
    first = write(tmp_path / "0.png", seed=1)
    write(tmp_path / "1.jpg", 64, 64, seed=2)
    truncate(tmp_path / "1.jpg")
    source = photos.Photos([tmp_path / "0.png", tmp_path / "1.jpg"], "two")
    np.testing.assert_array_equal(source[1], first)
    assert len(warnings_of(caplog, "1.jpg")) == 1


def test_damaged_photograph_is_said_once_however_small_the_cache(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(photos, "_CACHE_BYTES", 0)
    write(tmp_path / "0.png", seed=1)
    write(tmp_path / "1.jpg", 64, 64, seed=2)
    truncate(tmp_path / "1.jpg")
    source = photos.Photos([tmp_path / "0.png", tmp_path / "1.jpg"], "two")
    for _ in range(3):
        _ = source[1], source[0]
    assert len(warnings_of(caplog, "1.jpg")) == 1


def test_folder_of_damaged_photographs_alone_is_refused(tmp_path):
    write(tmp_path / "only.jpg", 64, 64)
    truncate(tmp_path / "only.jpg")
    source = photos.Photos([tmp_path / "only.jpg"], "the folder")
    with pytest.raises(InputError, match="the folder: every image is damaged"):
        _ = source[0]


def test_folder_of_text_alone_is_refused(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_text("text")
    with pytest.raises(InputError, match="none of its 3 files is a readable image"):
        photos.Photos(sorted(tmp_path.iterdir()), "the folder")


def test_missing_folder_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"data_dir = .*nowhere"):
        photos.photo_folder(tmp_path / "nowhere", "train")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_empty_folder_is_refused_by_name(tmp_path, split):
    with pytest.raises(InputError, match=rf"{tmp_path.name}.*holds no images.*\.jpg"):
        photos.photo_folder(tmp_path, split)


def test_missing_val_folder_is_refused_by_name(tmp_path):
    write(tmp_path / "train" / "a.png")
    with pytest.raises(InputError, match=r"val.* holds no images"):
        photos.photo_folder(tmp_path, "val")


def test_too_few_files_to_hold_one_out_are_refused(tmp_path):
    for i in range(9):
        write(tmp_path / f"{i}.png")
    assert len(photos.photo_folder(tmp_path, "train")) == 9
    with pytest.raises(InputError, match="at least 10"):
        photos.photo_folder(tmp_path, "val")


def test_scikit_images_photographs_are_split_four_to_two():
    train, val = photos.skimage_photos("train"), photos.skimage_photos("val")
    assert (len(train), len(val)) == (4, 2)
    assert not set(train.labels) & set(val.labels)
    assert photos.skimage_photos("test").labels == val.labels
    assert min(train.smallest_size()[:2]) >= 256
    assert val[0].shape[2] == 3


def test_photographs_for_training_are_all_readable(shared_data, caplog):
    source = photos.photo_folder(shared_data / "photos", "train")
    assert len(source) == 200 + 100 + 80 + 18 + 88
    assert len(photos.photo_folder(shared_data / "photos", "val")) == 100
    height, width, name = source.smallest_size()
    with Image.open(name) as image:
        assert image.size == (width, height)
    assert not caplog.records


def test_iteration_ends():
    assert len(list(photos.skimage_photos("val"))) == 2


def test_a_photograph_of_more_pixels_than_pillow_takes_is_left_out(tmp_path, caplog, monkeypatch):
    write(tmp_path / "train" / "small.png", 10, 10)
    write(tmp_path / "train" / "vast.png", 60, 60)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # twice as many are refused
    source = photos.photo_folder(tmp_path, "train")
    assert source.labels == ["small.png"]
    (record,) = caplog.records
    assert "vast.png: left out, not a readable image (Image size (3600 pixels)" in record.message


def test_a_folder_that_cannot_be_read_is_told(tmp_path, caplog, somebody_else):
    write(tmp_path / "train" / "a.png")
    write(tmp_path / "train" / "closed" / "b.png")
    (tmp_path / "train" / "closed").chmod(0o000)
    with somebody_else():
        source = photos.photo_folder(tmp_path, "train")
    assert source.labels == ["a.png"]
    (record,) = caplog.records
    told = f"{tmp_path}/train/closed: left out, cannot be read (Permission denied)"
    assert record.message == told
