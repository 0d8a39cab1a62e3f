import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

from jaxdeblur.data.clips import check as clip_check
from jaxdeblur.data.clips import storing
from jaxdeblur.data.clips.folders import open_folder
from jaxdeblur.data.clips.frames import Clip
from jaxdeblur.errors import InputError

FRAMES = 5
HEIGHT, WIDTH = 160, 192
PAN = 8  # pixels to the right from frame to frame
SCENES = {"train/000": (data.astronaut, (40, 60)), "val/000": (data.chelsea, (60, 100))}


def view(clip, i, shift=(0, 0)):
    """A frame of a camera that pans over a photograph; what it shows is shifted down and right."""
    photograph, (top, left) = SCENES[clip]
    top, left = top - shift[0], left + PAN * i - shift[1]
    return photograph()[top : top + HEIGHT, left : left + WIDTH]


def blur(pixels):
    return ndimage.gaussian_filter(pixels, (2, 2, 0))


def path(root, clip, kind, i):
    split, name = clip.split("/")
    return root / f"{split}_{kind}" / name / f"{i}.png"


def save(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, compress_level=1)


@pytest.fixture
def root(tmp_path):
    """A folder of two clips in which nothing is wrong."""
    for clip in SCENES:
        for i in range(FRAMES):
            save(path(tmp_path, clip, "sharp", i), view(clip, i))
            save(path(tmp_path, clip, "blur", i), blur(view(clip, i)))
    return tmp_path


def report(folder, variant="blur"):
    """Returns the number of problems, those told, and the other lines."""
    lines = []
    count = clip_check.check(folder, variant, lines.append)
    assert all("\n" not in line for line in lines)
    prefix = "problem: "
    problems = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    others = [line for line in lines if not line.startswith(prefix)]
    assert others[-1] == (f"{count} problems" if count else "no problems")
    return count, problems, others[:-1]


def test_a_clean_folder_has_no_problems_and_is_counted(root):
    (root / "val_sharp" / "000" / "notes.txt").touch()
    grey = path(root, "val/000", "blur", 3)
    Image.open(grey).convert("L").save(grey)
    assert report(root) == (
        0,
        [],
        [
            f"{root}: clips with 'blur' frames; kinds there: blur",
            "train: 1 clips, 5 frames, 192x160; REDS has 240 clips and 24000 frames there, so it "
            "is not complete",
            "val: 1 clips, 5 frames, 192x160; REDS has 30 clips and 3000 frames there, so it is "
            "not complete",
            "files that are no images, skipped: 1",
            "frames of type L are converted to RGB",
        ],
    )


def remove(root):
    for i in range(1, FRAMES):
        path(root, "train/000", "blur", i).unlink()


def truncate(root):
    file = path(root, "train/000", "sharp", 2)
    file.write_bytes(file.read_bytes()[:2000])


def share(root):
    for i in range(FRAMES):
        for kind in ("blur", "sharp"):
            path(root, "val/000", kind, i).write_bytes(
                path(root, "train/000", kind, i).read_bytes()
            )


def equal(root):
    save(path(root, "val/000", "blur", 3), view("val/000", 3))


def swap(root):
    for i, other in ((1, 2), (2, 1)):
        save(path(root, "val/000", "blur", i), blur(view("val/000", other)))


def shift(down, right):
    def change(root):
        for i in range(FRAMES):
            pixels = blur(view("train/000", i, (down, right)))
            save(path(root, "train/000", "blur", i), pixels)

    return change


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (remove, "train/000: 5 frames against 1, no blurred partner of 1, 2, 3 and 1 more"),
        (truncate, "ROOT/train_sharp/000/2.png"),
        (equal, "val/000: blurred and sharp are the same: 3"),
        (share, "train and val share sharp frames: 000/0, 000/1, 000/2 and 2 more"),
        (swap, "val/000: blurred frames look like another sharp one: 1 (like 2), 2 (like 1)"),
        (
            shift(16, 0),
            "train/000: blurred frames are shifted, by pixels: 0 (16 down, 0 right), "
            "1 (16 down, 0 right), 2 (16 down, 0 right) and 2 more",
        ),
        (
            shift(-8, 12),
            "train/000: blurred frames are shifted, by pixels: 0 (-8 down, 12 right), "
            "1 (-8 down, 12 right), 2 (-8 down, 12 right) and 2 more",
        ),
    ],
)
def test_every_kind_of_problem_is_told_with_examples(root, spoil, expected):
    spoil(root)
    count, problems, _ = report(root)
    assert count == 1
    assert expected in problems[0].replace(str(root), "ROOT")


def test_all_problems_are_told_at_once(root):
    for spoil in (truncate, equal, swap):
        spoil(root)
    save(root / "val_sharp" / "001" / "0.png", view("val/000", 0))
    count, problems, _ = report(root)
    assert count == 4
    for name in ("val/001", "train_sharp/000/2.png", "are the same", "look like another"):
        assert sum(name in problem for problem in problems) == 1


def test_a_frame_cut_short_leaves_the_rest_of_its_clip_checked(root):
    truncate(root)
    save(path(root, "train/000", "blur", 4), view("train/000", 4))
    count, problems, _ = report(root)
    assert count == 2
    assert "are the same: 4" in problems[1]


def test_a_small_shift_as_of_an_uneven_blur_is_none(root):
    shift(4, -4)(root)
    assert report(root)[:2] == (0, [])


def test_a_static_scene_has_no_swapped_frames(root):
    for i in range(1, FRAMES):
        for kind in ("blur", "sharp"):
            file = path(root, "train/000", kind, i)
            file.write_bytes(path(root, "train/000", kind, 0).read_bytes())
    assert report(root)[:2] == (0, [])


def test_frames_without_texture_are_no_problem(root):
    for i, level in enumerate((0, 0, 255)):  # a film that fades
        save(path(root, "train/000", "sharp", i), np.full((HEIGHT, WIDTH, 3), level, np.uint8))
        save(path(root, "train/000", "blur", i), np.full((HEIGHT, WIDTH, 3), abs(level - 1), "u1"))
    assert report(root)[:2] == (0, [])


def test_clips_of_no_split_that_share_frames_are_called_so(root):
    for kind in ("blur", "sharp"):
        for i in range(FRAMES):
            file = root / "holiday" / kind / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path(root, "val/000", kind, i).read_bytes())
    _, problems, others = report(root)
    assert "no split: 1 clips, 5 frames, 192x160" in others
    assert len(problems) == 1
    assert problems[0].startswith("no split and val share")


def clips_of(split, names, counts, size=(720, 1280)):
    return [
        Clip(split, name, tuple(map(str, range(count))), size)
        for name, count in zip(names, counts, strict=True)
    ]


REDS = [f"{i:03d}" for i in range(240)]
GOPRO = [f"GOPR0{i:03d}_11_0{i % 3}" for i in range(22)]


@pytest.mark.parametrize(
    ("clips", "expected"),
    [
        (clips_of("train", REDS, [100] * 240), "240 clips, 24000 frames, 1280x720: all of REDS's"),
        (clips_of("val", REDS[:30], [100] * 30), "30 clips, 3000 frames, 1280x720: all of REDS's"),
        (
            clips_of("val", REDS[:30], [100] * 29 + [99]),
            "30 clips, 2999 frames, 1280x720; REDS has 30 clips and 3000 frames there, so it is "
            "not complete",
        ),
        (
            clips_of("train", GOPRO, [95] * 21 + [108]),
            "22 clips, 2103 frames, 1280x720: all of GoPro's",
        ),
        (
            clips_of("test", GOPRO[:3], [1, 2, 3]),
            "3 clips, 6 frames, 1280x720; GoPro has 11 clips and 1111 frames there, so it is not "
            "complete",
        ),
        (clips_of("train", ["000", "holiday"], [2, 1]), "2 clips, 3 frames, 1280x720"),
        (clips_of("", REDS[:2], [2, 1]), "2 clips, 3 frames, 1280x720"),
        (
            clips_of("val", ["a"], [7]) + clips_of("val", ["b"], [2], (30, 40)),
            "2 clips, 9 frames, 1280x720, 40x30",
        ),
    ],
)
def test_counts_are_compared_with_the_published_ones(clips, expected):
    assert list(clip_check._inventory(clips)) == [f"{clips[0].split or 'no split'}: {expected}"]


def test_a_store_is_counted(root, tmp_path_factory):
    store = tmp_path_factory.mktemp("stores") / "store"
    storing.write(open_folder(root, "blur"), store, "blur")
    lines = []
    assert clip_check.check(store, "blur", lines.append) == 0
    assert lines[0] == f"{store}: a store of frames (blur)"
    assert [line.split(",")[0] for line in lines[1:]] == ["train: 1 clips", "val: 1 clips"]


def test_a_folder_without_such_clips_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"'.*nowhere' is no folder"):
        report(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"'{tmp_path}' holds no 'blur' frames.*none"):
        report(tmp_path)
    save(tmp_path / "val_blur_jpeg" / "000" / "0.png", view("val/000", 0))
    with pytest.raises(InputError, match="kinds of blurred frames there: blur_jpeg"):
        report(tmp_path)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("reds", ["train: 2 clips, 20 frames, 320x180", "val: 2 clips, 20 frames, 320x180"]),
        ("gopro", ["test: 3 clips, 3 frames, 1280x720"]),
    ],
)
def test_published_data_have_no_problems(shared_data, name, counts):
    count, problems, others = report(shared_data / name)
    assert (count, problems) == (0, [])
    for line, expected in zip(others[1:], counts, strict=True):
        assert line.startswith(expected)
