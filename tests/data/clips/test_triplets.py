"""On frames whose pixels say which frame, row and column they are of."""

import collections
import itertools

import jax
import numpy as np
import pytest

from jaxdeblur.configs import atrous_reds
from jaxdeblur.data import datasets, pipeline
from jaxdeblur.data.clips.frames import Clip
from jaxdeblur.data.clips.source import ClipSource
from jaxdeblur.data.clips.triplets import TripletSample

SIZE = (40, 48)


def position(part):
    """Frame f of clip c: 20c + f, and 100 more where blurred; its rows, and its columns."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    number = 20 * part.clip + part.frame + 100 * (part.kind == "blurred")
    frame = np.stack([np.full_like(rows, number), rows, columns], axis=-1).astype(np.uint8)
    window = frame[part.window.slices]
    assert window.shape[:2] == (part.window.height, part.window.width)
    return window


def make_source(*lengths, num_frames=3):
    clips = [
        Clip("train", f"{c:03}", tuple(f"{f:08}" for f in range(count)), SIZE)
        for c, count in enumerate(lengths)
    ]

    def read(parts):
        assert len(parts) == num_frames + 1  # nothing that is not asked for
        return [position(part) for part in parts]

    return ClipSource("positions", clips, read, num_frames)


def make_samples(count, source=None, **changes):
    settings = {"patch_size": 16, "flip": True, "rotate": True, "brightness": 0.1, "frame_shift": 2}
    sample = TripletSample(source or make_source(5), **settings | changes)
    return [sample(2, np.random.default_rng(seed)) for seed in range(count)]


def frames(sample):
    """Previous, current and next frame, and the sharp one: `[P, P, 3]` each, of signed values."""
    blurred = sample["blurred"].astype(int)
    return (*np.split(blurred, 3, axis=-1), sample["sharp"].astype(int))


def laid_like(sample):
    """Number of the way, of flip and quarter turn, in which the sharp patch lies."""
    sharp = frames(sample)[3][..., 1:]
    rows, columns = np.mgrid[:16, :16]
    straight = np.stack([rows, columns], axis=-1) + sharp.min(axis=(0, 1))
    ways = [straight, straight[:, ::-1], np.rot90(straight), np.rot90(straight[:, ::-1])]
    return [i for i, way in enumerate(ways) if np.array_equal(way, sharp)]


def test_a_sample_is_three_blurred_frames_and_the_sharp_one_between():
    for sample in make_samples(20):
        assert sample["blurred"].shape == (16, 16, 9)
        assert sample["sharp"].shape == (16, 16, 3)
        assert sample["blurred"].dtype == sample["sharp"].dtype == np.uint8
        assert [set(frame[..., 0].ravel()) for frame in frames(sample)] == [
            {101},
            {102},
            {103},
            {2},
        ]


def test_all_frames_lie_alike_and_the_sharp_one_where_the_current_is():
    for sample in make_samples(50):
        previous, current, following, sharp = (frame[..., 1:] for frame in frames(sample))
        np.testing.assert_array_equal(current, sharp)
        for neighbour in (previous, following):
            moved = neighbour - current
            assert (moved == moved[0, 0]).all()


def test_the_neighbours_are_moved_by_up_to_two_pixels_in_opposite_directions():
    seen = set()
    for sample in make_samples(400):
        previous, current, following, _ = (frame[0, 0, 1:] for frame in frames(sample))
        np.testing.assert_array_equal(following - current, current - previous)
        seen.add(tuple(following - current))
    assert seen == set(itertools.product(range(-2, 3), repeat=2))


def test_flips_and_turns_have_probability_one_half_each():
    ways = collections.Counter()
    for sample in make_samples(800):
        (way,) = laid_like(sample)
        ways[way] += 1
    assert all(150 < ways[way] < 250 for way in range(4))


@pytest.mark.parametrize(
    ("changes", "ways"),
    [({"rotate": False}, {0, 1}), ({"flip": False}, {0, 2}), ({"flip": 0, "rotate": 0}, {0})],
)
def test_flips_and_turns_can_be_left_out(changes, ways):
    assert {laid_like(sample)[0] for sample in make_samples(30, **changes)} == ways


def test_crops_reach_every_corner():
    lasts = set()
    for sample in make_samples(3000, flip=False, rotate=False, frame_shift=0):
        lasts.add(tuple(frames(sample)[3][0, 0, 1:]))
    tops, lefts = zip(*lasts, strict=True)
    assert (min(tops), max(tops)) == (0, SIZE[0] - 16)
    assert (min(lefts), max(lefts)) == (0, SIZE[1] - 16)


@pytest.mark.parametrize("patch_size", [39, 40])
def test_a_patch_as_large_as_the_frame_leaves_no_room_to_move(patch_size):
    for sample in make_samples(30, patch_size=patch_size, flip=False, rotate=False):
        previous, current, *_ = (frame[0, 0, 1:] for frame in frames(sample))
        assert current[0] == previous[0]


def test_the_brightness_changes_by_as_much_as_allowed_either_way():
    changes = [float(sample["brightness"]) for sample in make_samples(500)]
    assert -0.1 <= min(changes) < -0.095
    assert 0.095 < max(changes) <= 0.1
    assert {float(sample["brightness"]) for sample in make_samples(9, brightness=0)} == {0}


def make_config(**values):
    config = atrous_reds.get_config()
    config.update({"patch_size": 16, "eval_patch_size": 16, "batch_size": 4} | values)
    return config


def take(source, count, first_step=0):
    batches = pipeline.training_batches(make_config(), source, first_step)
    try:
        return [next(batches) for _ in range(count)]
    finally:
        batches.close()


def numbers(batches):
    """The sharp frames' numbers, in order."""
    return [int(patch[0, 0, 0]) for batch in batches for patch in batch["sharp"]]


def test_two_epochs_visit_every_frame_exactly_once_each():
    every = [*range(5), 20, *range(40, 46)]
    batches = take(make_source(5, 1, 6), 6)
    order = numbers(batches)
    assert sorted(order[:12]) == sorted(order[12:]) == every
    assert order[:12] != order[12:]
    assert [every[index] for batch in batches for index in batch["index"]] == order


@pytest.mark.parametrize("first_step", [0, 2])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batches_of_one(monkeypatch, processes, first_step):
    source = make_source(5, 1, 6)
    whole = take(source, 4)[first_step:]
    shares = []
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    for process in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        shares.append(take(source, 4 - first_step, first_step))
    for expected, *parts in zip(whole, *shares, strict=True):
        assert [len(part["sharp"]) for part in parts] == [4 // processes] * processes
        for name, values in expected.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_a_resumed_run_continues_with_the_very_next_sample():
    source = make_source(5, 4)
    whole = take(source, 7)
    for expected, batch in zip(whole[3:], take(source, 4, first_step=3), strict=True):
        assert expected.keys() == batch.keys() == {"blurred", "sharp", "brightness", "index"}
        for name, values in expected.items():
            np.testing.assert_array_equal(batch[name], values)


def test_evaluation_takes_one_crop_of_each_frame_always_the_same():
    source = make_source(3, 4)
    config = make_config(eval_batch_size=4)
    (first, four), (second, three) = pipeline.evaluation_batches(config, source)
    assert (four, three) == (4, 3)
    assert [*first["index"], *second["index"][:three]] == list(range(7))
    assert numbers([first, second])[:7] == [0, 1, 2, 20, 21, 22, 23]
    previous, current, following, sharp = frames({k: v[0] for k, v in first.items()})
    for frame, number in ((previous, 100), (current, 100), (following, 101), (sharp, 0)):
        assert (frame[..., 0] == number).all()  # the edge frame is repeated
        np.testing.assert_array_equal(frame[..., 1:], sharp[..., 1:])
    corners = {tuple(patch[0, 0, 1:]) for patch in first["sharp"]}
    assert len(corners) > 1
    (again, _), _ = pipeline.evaluation_batches(config, source)
    np.testing.assert_array_equal(again["blurred"], first["blurred"])


def test_a_whole_frame_is_a_sample():
    source = make_source(1, 2)
    for i, number in enumerate([0, 20, 21]):
        sample = source.whole_sample(i)
        assert sample["blurred"].shape == (*SIZE, 9)
        previous, current, following, sharp = frames(sample)
        for frame in (previous, current, following):
            np.testing.assert_array_equal(frame[..., 1:], sharp[..., 1:])
        assert sharp[0, 0, 0] == number
        assert (current[..., 0] == 100 + number).all()
        assert tuple(sharp[-1, -1, 1:]) == (SIZE[0] - 1, SIZE[1] - 1)


def test_a_patch_larger_than_the_frames_is_refused(tmp_path):
    from PIL import Image

    from jaxdeblur.errors import InputError

    for kind in ("sharp", "blur"):
        (tmp_path / "train" / kind / "lake").mkdir(parents=True)
        Image.new("RGB", (48, 40)).save(tmp_path / "train" / kind / "lake" / "1.png")
    config = make_config(data_dir=str(tmp_path), patch_size=64)
    with pytest.raises(InputError, match=r"no clips for 'train'"):
        datasets.open_source(config, "train")  # the only clip is held out
    for kind in ("sharp", "blur"):
        (tmp_path / "train" / kind / "lake").rename(tmp_path / "train" / kind / "a")
        (tmp_path / "val" / kind / "lake").mkdir(parents=True)
        Image.new("RGB", (48, 40)).save(tmp_path / "val" / kind / "lake" / "1.png")
    with pytest.raises(InputError, match=r"patch_size = 64 .* train/a \(40x48 pixels\)"):
        datasets.open_source(config, "train")


# Single frames, for networks of image mode.


def test_a_sample_of_one_frame_is_the_current_one_and_the_sharp_one():
    source = make_source(5, num_frames=1)
    for sample in make_samples(20, source):
        assert sample["blurred"].shape == sample["sharp"].shape == (16, 16, 3)
        assert sample["blurred"].dtype == sample["sharp"].dtype == np.uint8
        assert set(sample["blurred"][..., 0].ravel()) == {102}
        assert set(sample["sharp"][..., 0].ravel()) == {2}
        np.testing.assert_array_equal(sample["blurred"][..., 1:], sample["sharp"][..., 1:])


def test_samples_of_one_frame_are_the_middles_of_those_of_three():
    for one, three in zip(
        make_samples(20, make_source(5, num_frames=1)), make_samples(20), strict=True
    ):
        np.testing.assert_array_equal(one["blurred"], three["blurred"][..., 3:6])
        for name in ("sharp", "brightness"):
            np.testing.assert_array_equal(one[name], three[name])


def test_evaluation_of_one_frame_takes_the_same_crops():
    config = make_config(eval_batch_size=8)
    (three, _), (one, count) = (
        next(iter(pipeline.evaluation_batches(config, make_source(3, 4, num_frames=n))))
        for n in (3, 1)
    )
    assert count == 7
    assert one["blurred"].shape == (8, 16, 16, 3)
    np.testing.assert_array_equal(one["blurred"][:7], three["blurred"][:7, ..., 3:6])
    np.testing.assert_array_equal(one["sharp"][:7], three["sharp"][:7])


def test_a_whole_frame_alone_is_a_sample():
    sample = make_source(1, 2, num_frames=1).whole_sample(2)
    assert sample["blurred"].shape == sample["sharp"].shape == (*SIZE, 3)
    assert (sample["blurred"][..., 0] == 121).all()
    assert (sample["sharp"][..., 0] == 21).all()
