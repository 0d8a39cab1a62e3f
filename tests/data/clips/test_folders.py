import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from jaxdeblur.data.clips.folders import FolderReader, open_folder, read_frame, remarks
from jaxdeblur.data.clips.frames import Clip, Clips, Part, Window, choose
from jaxdeblur.errors import InputError

SIZE = (12, 16)
FRAME_BYTES = 3 * 12 * 16
WHOLE = Window(0, 0, *SIZE)


def write(path, seed=0, size=SIZE):
    """Saves a random image; returns what a reader must get of a lossless one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_pair(root, name="train_{}/000/1.png", seed=0):
    """Saves a blurred and a sharp frame; returns their pixels."""
    return [write(root / name.format(kind), seed + i) for i, kind in enumerate(("blur", "sharp"))]


@pytest.mark.parametrize(
    ("layout", "variant", "split", "name"),
    [
        ("train_{0}/000/00.png", "blur", "train", "000"),
        ("train/train_{0}/000/00.png", "blur", "train", "000"),
        ("train_{0}/train/train_{0}/000/00.png", "blur", "train", "000"),
        ("val_{0}/val/val_{0}/007/3.jpg", "blur_jpeg", "val", "007"),
        ("test/GOPR0384_11_00/{0}/000001.png", "blur", "test", "GOPR0384_11_00"),
        ("test/GOPR0384_11_00/{0}/000001.png", "blur_gamma", "test", "GOPR0384_11_00"),
        ("val/{0}/holiday/1.jpg", "blur", "val", "holiday"),
        ("{0}/1.jpg", "blur", "", "root"),
        ("{0}/trips/sea/1.WEBP", "blur", "", "trips/sea"),
    ],
)
def test_a_clip_is_found_in_every_layout(tmp_path, layout, variant, split, name):
    root = tmp_path / "root"
    blurred = root / layout.format(variant)
    sharp = (root / layout.format("sharp")).with_suffix(".png")
    for file in (blurred, sharp, root / "elsewhere" / "1.png"):  # the last one of no kind
        write(file)
    (clip,) = open_folder(root, variant)
    assert (clip.split, clip.name, clip.frames, clip.size) == (split, name, (sharp.stem,), SIZE)
    assert (clip.blurred, clip.sharp) == ((blurred,), (sharp,))


def test_frames_and_clips_are_in_natural_order(tmp_path):
    for clip in ("2", "10", "9"):
        for frame in ("f10", "f9", "f011", "f1"):
            write_pair(tmp_path, f"train_{{}}/{clip}/{frame}.png")
    clips = open_folder(str(tmp_path), "blur")
    assert [clip.name for clip in clips] == ["2", "9", "10"]
    for clip in clips:
        assert clip.frames == ("f1", "f9", "f10", "f011")
        for files in (clip.blurred, clip.sharp):
            assert tuple(file.stem for file in files) == clip.frames


def test_splits_and_variants_are_kept_apart(tmp_path):
    for split in ("train", "val", "test"):
        for kind in ("blur", "blur_jpeg", "sharp"):
            write(tmp_path / f"{split}_{kind}" / "000" / "1.png")
    write(tmp_path / "train_blur_jpeg" / "001" / "1.png")
    clips = open_folder(tmp_path, "blur")
    assert [clip.label for clip in clips] == ["test/000", "train/000", "val/000"]
    assert [clip.blurred[0].parts[-3] for clip in clips] == ["test_blur", "train_blur", "val_blur"]


def of(kind, numbers, size=SIZE):
    """A clip's files by name."""
    return {f"train_{kind}/000/{number}.png": size for number in numbers}


ALIKE = of("blur", range(1, 9)) | of("sharp", range(1, 9))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ALIKE | {"val_sharp/000/1.png": SIZE},
            "val/000: ROOT/val_sharp/000 has no partner, a folder of blur frames;",
        ),
        (of("sharp", [1]), "'ROOT' holds no 'blur' frames (kinds of blurred frames there: none);"),
        (of("blur", [1]), "'ROOT' holds 'blur' frames but no sharp ones beside them,"),
        (
            ALIKE | {"train_blur/001/1.png": SIZE},
            "train/001: ROOT/train_blur/001 has no partner, a folder of sharp frames;",
        ),
        (
            of("blur", [1, 7]) | of("sharp", range(1, 8)),
            "train/000: 7 frames against 2, no blurred partner of 2, 3, 4 and 2 more;",
        ),
        (of("blur", [1, 2]) | of("sharp", [2]), "2 frames against 1, no sharp partner of 1;"),
        (
            ALIKE | of("blur", range(1, 9), (12, 20)),
            "not all frames have 12x20 pixels: train_sharp/000/1.png (12x16), "
            "train_sharp/000/2.png (12x16), train_sharp/000/3.png (12x16) and 5 more;",
        ),
        (
            ALIKE | of("blur", [3], (9, 8)) | of("sharp", [3], (9, 8)),
            "not all frames have 12x16 pixels: train_blur/000/3.png (9x8), train_sharp/000/3.png "
            "(9x8);",
        ),
        (ALIKE | of("sharp", [2], None), "ROOT/train_sharp/000/2.png: no readable image"),
        (
            ALIKE | {"train/train_blur/000/1.png": SIZE},
            "ROOT/train/train_blur/000 and ROOT/train_blur/000 are the same clip;",
        ),
        (
            {f"train_sharp/{clip}/1.png": SIZE for clip in range(5)}
            | {"val_blur/0/1.png": SIZE, "val_sharp/0/1.png": SIZE},
            "ROOT/train_sharp/2 has no partner, a folder of blur frames and 2 more;",
        ),
        (
            {"holiday/1.png": SIZE},
            "'ROOT' holds no 'blur' frames (kinds of blurred frames there: none)",
        ),
        (
            of("blur_jpeg", [1]) | of("blur_gamma", [1]) | of("sharp", [1]),
            "(kinds of blurred frames there: blur_gamma, blur_jpeg);",
        ),
        (
            ALIKE | {"train_sharp/000/2.jpg": SIZE},
            "ROOT/train_sharp/000 has other files of the same frames beside 2.jpg;",
        ),
    ],
)
def test_bad_folders_are_refused_with_one_line_and_few_examples(tmp_path, files, expected):
    for name, size in files.items():
        write(tmp_path / name, size=size or SIZE)
        if not size:
            (tmp_path / name).write_text("no image")
    with pytest.raises(InputError) as error:
        open_folder(tmp_path, "blur")
    message = str(error.value).replace(str(tmp_path), "ROOT")
    assert expected in message
    assert "\n" not in message
    assert message.count(".png") + message.count("has no partner") <= 3


def test_a_missing_folder_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="nowhere' is no folder"):
        open_folder(tmp_path / "nowhere", "blur")


@pytest.mark.parametrize("variant", ["sharp", "train", "jpeg", ""])
def test_only_blurred_frames_can_be_restored(tmp_path, variant):
    write_pair(tmp_path)
    with pytest.raises(InputError, match=f"^'{variant}' is no kind of blurred frames"):
        open_folder(tmp_path, variant)


def test_a_split_without_sharp_frames_is_left_out(tmp_path):
    write_pair(tmp_path)
    write(tmp_path / "test_blur" / "000" / "1.png")  # as REDS is published
    assert [clip.split for clip in open_folder(tmp_path, "blur")] == ["train"]


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    write_pair(tmp_path)
    (tmp_path / "train_blur" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(open_folder(tmp_path, "blur")) == 1


def test_any_name_can_be_sorted(tmp_path):
    for name in ("1²", "2", "x"):
        write_pair(tmp_path, f"train_{{}}/000/{name}.png")
    assert len(open_folder(tmp_path, "blur")[0].frames) == 3


def test_opening_a_folder_decodes_no_pixels(tmp_path, monkeypatch):
    write_pair(tmp_path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    assert len(open_folder(tmp_path, "blur")) == 1


def test_other_files_are_skipped_and_counted_once(tmp_path):
    for name in ("000", "001"):
        write_pair(tmp_path, f"train_{{}}/{name}/1.png")
        (tmp_path / "train_sharp" / name / "notes.txt").touch()
    (tmp_path / "train_blur" / "000" / "Thumbs.db").touch()
    write(tmp_path / "train_blur" / "000" / ".2.png")
    (tmp_path / "readme.md").touch()  # in no clip's folder
    assert [clip.frames for clip in open_folder(tmp_path, "blur")] == [("1",), ("1",)]
    (remark,) = remarks(open_folder(tmp_path, "blur"))
    assert "files that are no images, skipped: 3" in remark


def test_grey_alpha_and_deep_frames_become_rgb_and_one_remark_says_so(tmp_path):
    color = write_pair(tmp_path, "{}/0.png")[0]
    levels = np.linspace(0, 65535, 12 * 16).reshape(SIZE).astype(np.uint16)
    grey = (levels // 257).astype(np.uint8)
    for kind in ("blur", "sharp"):
        for i, pixels in enumerate((color, grey, np.dstack([color, grey]), levels)):
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    (clip,) = open_folder(tmp_path, "blur")
    (remark,) = remarks(open_folder(tmp_path, "blur"))
    assert "I;16, L, RGBA are converted" in remark
    grey, deep = (np.repeat(x[..., None], 3, axis=-1) for x in (grey, levels / 257))
    for file, expected in zip(clip.sharp, (color, grey, color, deep), strict=True):
        frame = read_frame(file, SIZE)
        assert frame.dtype == np.uint8
        np.testing.assert_allclose(frame, expected, atol=0.5001 if expected is deep else 0)


def test_colours_of_16_bits_become_8_with_a_remark(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (*SIZE, 3), np.uint16)
    for kind in ("blur", "sharp"):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "0.png"), values[..., ::-1])
    (clip,) = open_folder(tmp_path, "blur")
    (remark,) = remarks(open_folder(tmp_path, "blur"))
    assert "RGB;16 are converted" in remark
    np.testing.assert_allclose(read_frame(clip.sharp[0], SIZE), values / 257, atol=1)


@pytest.mark.parametrize("cache_bytes", [0, FRAME_BYTES, 2**20])
def test_windows_are_those_of_the_saved_pixels(tmp_path, cache_bytes):
    saved = [
        [write_pair(tmp_path, f"train_{{}}/{i}/{j}.png", 100 * i + 10 * j) for j in range(3)]
        for i in range(2)
    ]
    read = FolderReader(open_folder(tmp_path, "blur"), cache_bytes)
    for top, left, height, width in [(0, 0, 12, 16), (3, 5, 4, 7), (11, 15, 1, 1), (3, 5, 4, 7)]:
        window = Window(top, left, height, width)
        order = [(i, j, k) for j in range(3) for i in range(2) for k in (1, 0)]
        got = read([Part(i, j, ("blurred", "sharp")[k], window) for i, j, k in order])
        expected = [saved[i][j][k][top : top + height, left : left + width] for i, j, k in order]
        np.testing.assert_array_equal(got, expected)


def test_a_cache_of_one_frame_keeps_the_last(tmp_path):
    pixels = [write_pair(tmp_path, f"train_{{}}/000/{i}.png", 2 * i)[1] for i in range(2)]
    clips = open_folder(tmp_path, "blur")
    read = FolderReader(clips, FRAME_BYTES)
    first, last = (Part(0, i, "sharp", WHOLE) for i in range(2))
    read([first, last])
    for file in clips[0].sharp:
        file.unlink()
    np.testing.assert_array_equal(read([last])[0], pixels[1])
    with pytest.raises(InputError, match=str(clips[0].sharp[0])):
        read([first])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:300]), "is damaged"),
        (lambda file: write(file, size=(20, 24)), "has 20x24 pixels, not 12x16"),
    ],
)
def test_a_frame_spoilt_after_opening_is_refused_by_name(tmp_path, spoil, told):
    write_pair(tmp_path)
    clips = open_folder(tmp_path, "blur")
    spoil(clips[0].sharp[0])
    with pytest.raises(InputError, match=f"^{clips[0].sharp[0]} {told}.*$"):
        FolderReader(clips)([Part(0, 0, "sharp", WHOLE)])


@pytest.mark.parametrize(
    ("splits", "train", "val", "test"),
    [
        (["train", "val", "test", "train"], [0, 3], [1], [2]),
        (["train", "val", "val"], [0], [1, 2], [1, 2]),
        (["train", "test", "train"], [0], [2], [1]),
        (["", "", "train"], [0, 1], [2], [2]),
        (["", "val"], [0], [1], [1]),
        (["train"] * 10, [*range(9)], [9], [9]),
        (["train"] * 22, [*range(9), *range(10, 19), 20, 21], [9, 19], [9, 19]),
        # None: refused
        (["test", "test"], None, None, [0, 1]),
        (["val"], None, [0], [0]),
        ([""], None, [0], [0]),
    ],
)
def test_splits_are_chosen_or_held_out(splits, train, val, test):
    clips = [Clip(split, str(i), ("1",), SIZE) for i, split in enumerate(splits)]
    for split, expected in (("train", train), ("val", val), ("test", test)):
        if expected is None:
            there = f"clips there: {len(clips)} {splits[0] or 'of no split'};"
            with pytest.raises(InputError, match=f"'data'.*'{split}' .{there}.*{split}_sharp"):
                choose(clips, split, "data")
        else:
            assert [int(clip.name) for clip in choose(clips, split, "data")] == expected


@pytest.fixture
def clips():
    """Three clips of 3, 1 and 2 frames whose pixels tell clip, frame, kind, top and left."""

    def read(parts):
        levels = ((10 * p.clip + p.frame, 100 * (p.kind == "sharp") + p.window[0]) for p in parts)
        return [
            np.full((*part.window[2:], 3), [*level, part.window[1]], np.uint8)
            for part, level in zip(parts, levels, strict=True)
        ]

    a = Clip("train", "a", ("x", "y", "z"), (20, 90))
    b, c = Clip("val", "b", ("x",), (30, 25)), Clip("val", "c", ("x", "y"), (40, 18))
    return Clips("fake", [a, b, c], read)


def test_neighbours_never_come_from_another_clip(clips):
    expected = [(0, 0, 1), (0, 1, 2), (1, 2, 2), (10, 10, 10), (20, 20, 21), (20, 21, 21)]
    assert len(clips) == len(expected)
    for index, frames in enumerate(expected):
        blurred, sharp = clips.triplet(index, Window(2, 3, 4, 5))
        assert (blurred.shape, sharp.shape) == ((4, 5, 9), (4, 5, 3))
        assert blurred[0, 0].tolist() == [value for frame in frames for value in (frame, 2, 3)]
        assert sharp[0, 0].tolist() == [frames[1], 102, 3]


def test_neighbours_are_shifted_in_opposite_directions(clips):
    blurred, sharp = clips.triplet(1, Window(20, 30, 4, 5), (3, -2))
    assert blurred[3, 4].tolist() == [0, 17, 32, 1, 20, 30, 2, 23, 28]
    assert sharp[3, 4].tolist() == [1, 120, 30]


def test_frames_have_labels_and_the_size_of_their_clip(clips):
    assert clips.labels == ["a/x", "a/y", "a/z", "b/x", "c/x", "c/y"]
    assert [clips.size(i) for i in (0, 2, 3, 5)] == [(20, 90), (20, 90), (30, 25), (40, 18)]
    assert clips.smallest_size() == (40, 18, "val/c")


@pytest.mark.parametrize("index", [-1, 6])
def test_no_frame_lies_beyond_the_ends(clips, index):
    for read in (clips.size, lambda i: clips.triplet(i, WHOLE)):
        with pytest.raises(IndexError):
            read(index)
