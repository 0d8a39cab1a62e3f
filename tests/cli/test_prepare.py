"""`jaxdeblur prepare check` and `prepare frames` on small folders of clips."""

import re

import numpy as np
import pytest
from PIL import Image

from jaxdeblur import cli
from jaxdeblur.data.clips import frames as clips
from jaxdeblur.data.clips import store as frame_store

SIZE = (70, 90)


@pytest.fixture
def prepare(capsys):
    """Runs the command; returns its status, standard output and standard error."""

    def run(*arguments):
        status = 0
        try:
            cli.main(["prepare", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def folder(tmp_path):
    """Three clips of two frames; each frame's pixels are its picture's, darker where blurred."""
    folder = tmp_path / "data"
    for split, name, seed in (("train", "a", 0), ("train", "b", 10), ("val", "a", 20)):
        for i in range(2):
            for kind, pixels in zip(("blur", "sharp"), pictures(seed + i), strict=True):
                save(folder / f"{split}_{kind}" / name / f"{i}.png", pixels)
    return folder


def pictures(seed):
    sharp = np.random.default_rng(seed).integers(50, 256, (*SIZE, 3), np.uint8)
    return sharp - 50, sharp


def save(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def contents(folder):
    """Each file with its time and bytes."""
    return {
        file: (file.stat().st_mtime_ns, file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file()
    }


def only_error(err):
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def test_check_prints_what_a_clean_folder_holds(folder, prepare):
    before = contents(folder)
    status, out, err = prepare("check", folder)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{folder}: clips with 'blur' frames; kinds there: blur",
        "train: 2 clips, 4 frames, 90x70",
        "val: 1 clips, 2 frames, 90x70",
        "no problems",
    ]
    assert contents(folder) == before


def test_check_lists_every_problem_and_fails(folder, prepare):
    (folder / "val_blur" / "a" / "1.png").unlink()
    save(folder / "train_blur" / "b" / "0.png", pictures(10)[1])
    status, out, err = prepare("check", folder)
    assert status == 2
    assert only_error(err) == f"error: 2 problems in {folder}, listed above"
    problems = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2
    assert "val/a: 2 frames against 1, no blurred partner of 1" in problems[0]
    assert "train/b: blurred and sharp are the same: 0" in problems[1]


def test_frames_writes_a_store_of_the_same_pixels(folder, tmp_path, prepare):
    store = tmp_path / "deep" / "store"
    status, out, err = prepare("frames", folder, store)
    assert (status, out, err) == (0, f"{store}: 3 clips, 12 frames\n", "")
    stored = frame_store.open_store(store, "blur").clips
    assert [clip.label for clip in stored] == ["train/a", "train/b", "val/a"]
    source = clips.Clips("store", stored, frame_store.StoreReader(store, stored))
    for index, seed in enumerate((0, 1, 10, 11, 20, 21)):
        blurred, sharp = source.triplet(index, clips.Window(0, 0, *SIZE))
        np.testing.assert_array_equal(blurred[..., 3:6], pictures(seed)[0])
        np.testing.assert_array_equal(sharp, pictures(seed)[1])

    status, out, err = prepare("check", store)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{store}: a store of frames (blur)",
        "train: 2 clips, 4 frames, 90x70",
        "val: 1 clips, 2 frames, 90x70",
    ]


def test_frames_again_writes_nothing_anew(folder, tmp_path, prepare):
    store = tmp_path / "store"
    first = prepare("frames", folder, store)
    before = contents(store)
    assert len(before) > 3
    assert prepare("frames", folder, store) == first
    assert contents(store) == before


def test_frames_goes_on_where_a_damaged_file_stopped_it(folder, tmp_path, prepare):
    store = tmp_path / "store"
    bad = folder / "train_blur" / "b" / "1.jpg"  # whose header is whole
    bad.with_suffix(".png").unlink()
    save(bad, pictures(11)[0])
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    status, out, err = prepare("frames", folder, store)
    assert (status, out) == (2, "")
    assert f"{bad} is damaged" in only_error(err)
    status, out, _ = prepare("check", store)
    assert status == 2
    assert out.splitlines()[1:] == [
        "train: 1 clips, 2 frames, 90x70",
        "problem: 2 clips are missing; run `jaxdeblur prepare frames` again",
    ]
    before = {file: kept for file, kept in contents(store).items() if "a" in file.parts}

    bad.write_bytes(whole)
    assert prepare("frames", folder, store)[0] == 0
    after = contents(store)
    assert before
    assert {file: after[file] for file in before} == before
    assert prepare("check", store)[1].splitlines()[1:] == [
        "train: 2 clips, 4 frames, 90x70",
        "val: 1 clips, 2 frames, 90x70",
    ]


def test_the_variant_chooses_the_blurred_frames(folder, tmp_path, prepare):
    store = tmp_path / "store"
    (folder / "train_blur").rename(folder / "train_blur_gamma")
    (folder / "val_blur").rename(folder / "val_blur_gamma")
    for arguments in (("check", folder), ("frames", folder, store), ("check", store)):
        status, out, _ = prepare(*arguments, "--variant", "blur_gamma")
        assert status == 0
    assert out.startswith(f"{store}: a store of frames (blur_gamma)\n")
    assert "'blur_gamma' frames, not 'blur'" in only_error(prepare("check", store)[2])


def test_what_is_skipped_and_converted_is_said(folder, tmp_path, prepare):
    (folder / "val_sharp" / "a" / "notes.txt").touch()
    Image.fromarray(pictures(20)[1]).convert("L").save(folder / "val_sharp" / "a" / "0.png")
    status, out, _ = prepare("check", folder)
    assert status == 0
    remarks = ["files that are no images, skipped: 1", "frames of type L are converted to RGB"]
    assert out.splitlines()[3:] == [*remarks, "no problems"]
    status, out, _ = prepare("frames", folder, tmp_path / "store")
    assert status == 0
    assert out.splitlines()[:2] == remarks


def lone(folder, out):
    save(folder / "train_sharp" / "c" / "0.png", pictures(30)[1])


def text(folder, out):
    (folder / "train_sharp" / "b" / "1.png").write_text("no image")


def occupy(folder, out):
    out.mkdir()
    (out / "mine.txt").write_text("mine")


def nothing(folder, out):
    pass


@pytest.mark.parametrize(
    ("spoil", "command", "message"),
    [
        (lone, "frames DIR OUT", r"train_sharp/c has no partner, a folder of blur frames"),
        (lone, "check DIR", r"1 problems in .*data"),
        (text, "frames DIR OUT", r"train_sharp/b/1\.png: no readable image"),
        (text, "check DIR", r"1 problems in .*data"),
        (nothing, "frames DIR/none OUT", r"data/none' is no folder"),
        (nothing, "check DIR/none", r"data/none' is no folder"),
        (nothing, "frames DIR/train_blur OUT", r"train_blur' holds no 'blur' frames"),
        (nothing, "check DIR/train_blur", r"train_blur' holds no 'blur' frames"),
        (nothing, "frames DIR gs://bucket/x", r"gs://bucket/x is no folder"),
        (nothing, "frames DIR DIR/val_blur/a/0.png/x", r"0\.png/x: cannot be written"),
        (nothing, "frames DIR DIR", r"data holds other files; give a new folder"),
        (occupy, "frames DIR OUT", r"out holds other files; give a new folder"),
        (nothing, "frames DIR", r"required: OUT"),
        (nothing, "check", r"required: DIR"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    folder, tmp_path, prepare, spoil, command, message
):
    out = tmp_path / "out"
    spoil(folder, out)
    before = contents(tmp_path)
    arguments = command.replace("DIR", str(folder)).replace("OUT", str(out)).split()
    status, printed, err = prepare(*arguments)
    assert status == 2
    assert re.search(message, only_error(err))
    assert command.startswith("check") or not printed
    assert contents(tmp_path) == before
    assert out.exists() == (spoil is occupy)
