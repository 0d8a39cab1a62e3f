"""`jaxdeblur prepare check` and `prepare frames` on small folders of clips."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxdeblur import cli
from jaxdeblur.data.clips import frames as clips
from jaxdeblur.data.clips import store as frame_store
from jaxdeblur.data.clips.frames import Part, Window

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
    assert (status, out) == (1, f"{store}: 2 clips, 8 frames\n")
    assert f"{bad} is damaged" in only_error(err)
    status, out, _ = prepare("check", store)
    assert status == 2
    assert out.splitlines()[1:] == [
        "train: 1 clips, 2 frames, 90x70",
        "val: 1 clips, 2 frames, 90x70",
        "problem: 1 clips are missing; run `jaxdeblur prepare frames` again",
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


def add(folder, name, seed=40):
    """One more clip of one frame."""
    for kind, pixels in zip(("blur", "sharp"), pictures(seed), strict=True):
        save(folder / f"train_{kind}" / name / "0.png", pixels)


def stored_frames(store):
    """The first sharp frame of each clip, by its label."""
    clips = frame_store.open_store(store, "blur").clips
    read = frame_store.StoreReader(store, clips)
    return {
        clip.label: read([Part(number, 0, "sharp", Window(0, 0, *SIZE))])[0]
        for number, clip in enumerate(clips)
    }


def unpaired(folder):
    save(folder / "train_sharp" / "c" / "0.png", pictures(30)[1])


def no_image(folder):
    add(folder, "c")
    (folder / "train_sharp" / "c" / "0.png").write_text("no image")


def inside(folder):
    add(folder, "a/c/0")  # where the chunks of `a` would be


def pipe(folder):
    add(folder, "c")
    (folder / "train_sharp" / "c" / "0.png").unlink()
    os.mkfifo(folder / "train_sharp" / "c" / "0.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unpaired, r"train_sharp/c has no partner, a folder of blur frames"),
        (no_image, r"train_sharp/c/0\.png: no readable image"),
        (inside, r"train/a/c/0: lies in the folder of another clip, train/a, which a store"),
        (pipe, r"train_sharp/c/0\.png: no readable image \(not a file\)"),
    ],
)
def test_a_bad_clip_is_one_line_and_the_others_are_stored(
    folder, tmp_path, prepare, spoil, message
):
    store = tmp_path / "store"
    spoil(folder)
    for _ in range(2):
        status, out, err = prepare("frames", folder, store)
        assert (status, out) == (1, f"{store}: 3 clips, 12 frames\n")
        assert re.search(message, only_error(err))
        seen = stored_frames(store)
        for label, seed in (("train/a", 0), ("train/b", 10), ("val/a", 20)):
            np.testing.assert_array_equal(seen[label], pictures(seed)[1])
    assert "problem: 1 clips are missing" in prepare("check", store)[1]


def test_a_clip_around_stored_ones_takes_nothing_from_them(folder, tmp_path, prepare):
    store = tmp_path / "store"
    add(folder, "z/c")
    assert prepare("frames", folder, store)[0] == 0
    before = contents(store / "train" / "z")
    add(folder, "z")
    status, _, err = prepare("frames", folder, store)
    assert status == 1
    assert "train/z" in only_error(err)
    assert contents(store / "train" / "z").items() >= before.items()
    np.testing.assert_array_equal(stored_frames(store)["train/z/c"], pictures(40)[1])


def test_files_of_others_in_a_store_stay(folder, tmp_path, prepare):
    store = tmp_path / "store"
    assert prepare("frames", folder, store)[0] == 0
    mine = store / "train" / "c" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    add(folder, "c")
    status, _, err = prepare("frames", folder, store)
    assert status == 1
    assert "train/c holds other files" in only_error(err)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    "name", [b"a\xff\xfe", b"two\nlines", b"n" * 255, "ü🎞".encode(), b"-x", b"50% \\x"]
)
def test_names_of_any_bytes(folder, tmp_path, prepare, name):
    store = tmp_path / "store"
    add(folder, os.fsdecode(name))
    assert prepare("check", folder)[0] == 0
    status, out, err = prepare("frames", folder, store)
    assert (status, out, err) == (0, f"{store}: 4 clips, 14 frames\n", "")
    seen = stored_frames(store)
    np.testing.assert_array_equal(seen[f"train/{os.fsdecode(name)}"], pictures(40)[1])
    assert prepare("frames", folder, store)[0] == 0


def test_a_name_that_gets_too_long_is_one_line(folder, tmp_path, prepare):
    store = tmp_path / "store"
    add(folder, os.fsdecode(b"\xff" * 200))  # %FF each, where it is stored
    status, out, err = prepare("frames", folder, store)
    assert (status, out) == (1, f"{store}: 3 clips, 12 frames\n")
    assert "File name too long" in only_error(err)


def test_a_folder_that_may_not_be_read_is_one_line(folder, tmp_path, prepare, somebody_else):
    store = tmp_path / "store"
    store.mkdir(mode=0o777)
    store.chmod(0o777)
    add(folder, "c/shut")
    for kind in ("blur", "sharp"):
        (folder / f"train_{kind}" / "c").chmod(0)
    with somebody_else():
        status, out, err = prepare("frames", folder, store)
    for kind in ("blur", "sharp"):
        (folder / f"train_{kind}" / "c").chmod(0o755)
    assert (status, out) == (1, f"{store}: 3 clips, 12 frames\n")
    lines = err.splitlines()
    assert len(lines) == 2
    assert all("/c: cannot be read (Permission denied)" in line for line in lines)


def test_links_in_loops_are_followed_once(folder, tmp_path, prepare):
    store = tmp_path / "store"
    for kind in ("blur", "sharp"):
        one, other = (folder / f"train_{kind}" / name for name in "ab")
        (one / "l").symlink_to(other)
        (other / "l").symlink_to(one)
        (folder / f"val_{kind}" / "self").symlink_to("self")
    status, out, err = prepare("frames", folder, store)
    # The clips `a/l` and `b/l` are `b` and `a` again, in the folders of clips.
    assert (status, out) == (1, f"{store}: 3 clips, 12 frames\n")
    assert [re.search(r"train/(./l): lies in", line)[1] for line in err.splitlines()] == [
        "a/l",
        "b/l",
    ]


def test_a_store_inside_the_folder_is_no_clip_of_it(folder, prepare):
    store = folder / "store"
    first = prepare("frames", folder, store)
    assert first == (0, f"{store}: 3 clips, 12 frames\n", "")
    before = contents(folder)
    assert prepare("frames", folder, store) == first
    assert contents(folder) == before


def test_two_processes_into_one_store(folder, tmp_path, prepare):
    store = tmp_path / "store"
    command = [sys.executable, "-m", "jaxdeblur", "prepare", "frames", folder, store]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        out, err = process.communicate()
        assert (process.returncode, out, err) == (0, f"{store}: 3 clips, 12 frames\n", "")
    seen = stored_frames(store)
    for label, seed in (("train/a", 0), ("train/b", 10), ("val/a", 20)):
        np.testing.assert_array_equal(seen[label], pictures(seed)[1])
    assert sorted(path.name for path in store.iterdir()) == ["index.json", "train", "val"]


def test_what_a_killed_run_left_before_its_index_is_no_obstacle(folder, tmp_path, prepare):
    store = tmp_path / "store"
    store.mkdir()
    (store / ".jaxdeblur-0123456789abcdef.part.json").touch()
    assert prepare("frames", folder, store)[0] == 0
    assert not list(store.glob(".*"))


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
        (lone, "check DIR", r"1 problems in .*data"),
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
