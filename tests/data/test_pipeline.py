import collections
import contextlib

import jax
import numpy as np
import pytest
from positions import Positions, assert_same_batches, indices, make_config, sigmas, take, train

from jaxdeblur.data import pipeline

# Training.


@pytest.mark.parametrize(("count", "batch_size"), [(12, 4), (10, 4), (6, 6), (3, 4)])
def test_every_image_comes_once_an_epoch(count, batch_size):
    config = make_config(batch_size=batch_size)
    batches = train(config, Positions(count), count)
    seen = indices(batches)
    for epoch in range(batch_size):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_batches_have_the_configured_shapes():
    batch = train(make_config(), Positions(8), 1)[0]
    assert batch.keys() == {"sharp", "sigma", "index"}
    assert batch["sharp"].shape == (4, 5, 5, 3)
    assert batch["sharp"].dtype == np.uint8
    assert batch["sigma"].shape == batch["index"].shape == (4,)
    assert batch["sigma"].dtype == np.float32
    assert batch["index"].dtype == np.int32
    np.testing.assert_array_equal(batch["index"], batch["sharp"][:, 0, 0, 0])


def test_epochs_come_in_different_orders():
    seen = indices(train(make_config(), Positions(12), 9))
    epochs = {tuple(seen[i : i + 12]) for i in range(0, 36, 12)}
    assert len(epochs) == 3
    assert tuple(range(12)) not in epochs


@pytest.mark.parametrize("fresh", [True, False])
def test_batches_are_a_function_of_the_seed(fresh):
    config = make_config(fresh_sigma=fresh, flip=True, rotate=True)
    first = train(config, Positions(9), 8)
    assert_same_batches(first, train(config, Positions(9), 8))
    other = make_config(fresh_sigma=fresh, flip=True, rotate=True, seed=4)
    other = train(other, Positions(9), 8)
    assert indices(first) != indices(other)
    assert not np.array_equal(sigmas(first), sigmas(other))


def sigmas_by_image(config, count, epochs):
    batches = train(config, Positions(count), epochs * count // 4)
    found = collections.defaultdict(list)
    for index, sigma in zip(indices(batches), sigmas(batches), strict=True):
        found[index].append(float(sigma))
    return found


def test_published_recipe_blurs_an_image_the_same_way_every_time():
    found = sigmas_by_image(make_config(fresh_sigma=False), 8, 5)
    assert all(len(values) == 5 and len(set(values)) == 1 for values in found.values())
    assert len({values[0] for values in found.values()}) == 8


def test_fixed_sigma_does_not_depend_on_how_many_images_there_are():
    few = sigmas_by_image(make_config(fresh_sigma=False), 8, 1)
    many = sigmas_by_image(make_config(fresh_sigma=False), 16, 1)
    assert all(few[i] == many[i] for i in few)


def test_fresh_sigma_differs_every_time_and_fills_the_range():
    found = sigmas_by_image(make_config(fresh_sigma=True, max_sigma=2.0), 8, 25)
    assert all(len(set(values)) == 25 for values in found.values())
    everything = np.concatenate(list(found.values()))
    assert everything.min() > 0
    assert everything.max() < 2
    assert (abs(np.histogram(everything, 4, (0, 2))[0] - 50) < 25).all()


@pytest.mark.parametrize("position", [0, 1, 5])
def test_batches_from_a_step_on_are_those_of_a_run_that_reached_it(position):
    config = make_config(fresh_sigma=True, flip=True, rotate=True)
    with contextlib.closing(pipeline.training_batches(config, Positions(9))) as batches:
        take(batches, position)
        expected = take(batches, 4)
    with contextlib.closing(pipeline.training_batches(config, Positions(9), position)) as resumed:
        assert_same_batches(take(resumed, 4), expected)


def of_each_process(monkeypatch, count, make):
    """What each of some processes makes."""
    made = []
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: count)
        for process in range(count):
            patch.setattr(jax, "process_index", lambda process=process: process)
            made.append(make())
    return made


def joined(parts):
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("degradation", ["fresh", "fixed", "camera"])
def test_parts_of_the_processes_join_to_the_batches_of_one(monkeypatch, degradation, processes):
    config = make_config(fresh_sigma=degradation == "fresh", flip=True, rotate=True)
    if degradation == "camera":
        config.degradation = "camera"
    source = Positions(9, 40, 40)  # nine images and batches of four: parts cross the epochs' ends
    whole = train(config, source, 6)
    for first in (0, 4):
        shares = of_each_process(
            monkeypatch, processes, lambda first=first: train(config, source, 6 - first, first)
        )
        assert {len(part["sharp"]) for share in shares for part in share} == {4 // processes}
        assert_same_batches([joined(parts) for parts in zip(*shares, strict=True)], whole[first:])


# Evaluation.


@pytest.mark.parametrize(
    ("images", "repeats", "batch_size", "counts"),
    [(5, 1, 2, [2, 2, 1]), (4, 1, 2, [2, 2]), (3, 3, 4, [4, 4, 1]), (3, 1, 8, [3])],
)
def test_last_batch_is_filled_up_and_says_how_many_count(images, repeats, batch_size, counts):
    config = make_config(eval_batch_size=batch_size, eval_repeats=repeats)
    batches = list(pipeline.evaluation_batches(config, Positions(images)))
    assert [count for _, count in batches] == counts
    for batch, count in batches:
        assert batch["sharp"].shape == (batch_size, 4, 4, 3)
        assert batch["sigma"].shape == batch["index"].shape == (batch_size,)
        np.testing.assert_array_equal(batch["index"], batch["sharp"][:, 0, 0, 0])
        for key in batch:
            np.testing.assert_array_equal(
                batch[key][count:], np.repeat(batch[key][count - 1 : count], batch_size - count, 0)
            )
    seen = np.concatenate([batch["index"][:count] for batch, count in batches])
    np.testing.assert_array_equal(seen, np.tile(np.arange(images), repeats))


@pytest.mark.parametrize(
    ("images", "repeats", "batch_size", "processes"),
    [(5, 1, 2, 2), (4, 1, 2, 2), (3, 3, 4, 2), (3, 1, 8, 2), (5, 2, 8, 4), (1, 1, 4, 4)],
)
def test_parts_of_an_evaluation_join_to_the_batches_of_one(
    monkeypatch, images, repeats, batch_size, processes
):
    config = make_config(eval_batch_size=batch_size, eval_repeats=repeats)

    def evaluate():
        return list(pipeline.evaluation_batches(config, Positions(images)))

    whole = evaluate()
    shares = of_each_process(monkeypatch, processes, evaluate)
    for (batch, count), *parts in zip(whole, *shares, strict=True):
        assert {len(part["sharp"]) for part, _ in parts} == {batch_size // processes}
        assert [own for _, own in parts] == [count] * processes  # of the whole batch
        assert_same_batches([joined([part for part, _ in parts])], [batch])


def test_repeats_take_sigma_from_successive_parts():
    config = make_config(eval_batch_size=5, eval_repeats=3, max_sigma=3.0)
    for r, (batch, _) in enumerate(pipeline.evaluation_batches(config, Positions(5))):
        assert (np.floor(batch["sigma"]) == r).all()
        assert len(set(batch["sigma"].tolist())) == 5


def test_evaluation_is_the_same_every_time_and_not_the_training_blur():
    config = make_config(eval_batch_size=8, fresh_sigma=False)
    [(first, _)] = pipeline.evaluation_batches(config, Positions(8))
    [(second, _)] = pipeline.evaluation_batches(config, Positions(8))
    assert_same_batches([first], [second])
    training = sigmas_by_image(config, 8, 1)
    assert all(training[i] != [float(sigma)] for i, sigma in enumerate(first["sigma"]))


def test_evaluation_does_not_depend_on_the_batch_size():
    samples = []
    for size in (1, 3, 7):
        config = make_config(eval_batch_size=size, eval_repeats=2)
        batches = list(pipeline.evaluation_batches(config, Positions(7)))
        samples.append(np.concatenate([b["sigma"][:count] for b, count in batches]))
    np.testing.assert_array_equal(samples[0], samples[1])
    np.testing.assert_array_equal(samples[0], samples[2])
