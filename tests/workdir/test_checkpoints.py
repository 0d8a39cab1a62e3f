import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore

from jaxdeblur.errors import InputError
from jaxdeblur.training.state import TrainState
from jaxdeblur.workdir import checkpoints


def make_state(step):
    rng = np.random.default_rng(step)
    params = {
        "stem": {"kernel": rng.normal(size=(3, 3, 4)).astype(np.float32), "bias": np.zeros(4, "f")},
        "long": rng.normal(size=(64, 65)).astype(np.float32),
    }
    return TrainState(np.array(step, np.int32), params, None, {}, optax.EmptyState())


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def save(workdir, step, psnr=None):
    """Saves one checkpoint as a process of its own would."""
    with checkpoints.Checkpoints(workdir) as saved:
        saved.save(make_state(step), step, psnr or {})


def read_newest(workdir):
    return checkpoints.read_newest(workdir, abstract(make_state(0)))


def assert_state(state, step):
    expected = make_state(step)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert isinstance(x, np.ndarray)
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def contents(folder):
    """Everything below a folder: the files' bytes, None for folders."""
    found = sorted(folder.rglob("*"))
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in found}


def names(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A workdir with checkpoints of steps 2 and 3; tests work on copies."""
    workdir = tmp_path_factory.mktemp("run")
    for step in (2, 3):
        save(workdir, step)
    return workdir


@pytest.fixture
def workdir(two, tmp_path):
    return shutil.copytree(two, tmp_path / "run")


def test_the_best_and_the_newest_two_are_kept_from_process_to_process(tmp_path):
    psnr = {}
    for step, measured in enumerate([None, 30.0, 31.0, None, 29.0, None], start=1):
        save(tmp_path, step, psnr)  # before its evaluation
        if measured is not None:
            psnr[step] = measured
    assert names(tmp_path) == ["3", "5", "6"]
    assert checkpoints.steps(tmp_path) == [3, 5, 6]
    assert checkpoints.best_step(tmp_path, psnr) == 3


def test_a_new_best_takes_the_place_of_the_old_one(tmp_path):
    psnr = {}
    with checkpoints.Checkpoints(tmp_path) as saved:
        for step, measured in enumerate([30.0, 29.0, 31.0, 28.0, 27.0, 26.0], start=8):
            saved.save(make_state(step), step, dict(psnr))
            psnr[step] = measured
    assert names(tmp_path) == ["10", "12", "13"]
    assert checkpoints.best_step(tmp_path, psnr) == 10
    # The best of those that there are, whatever else was measured.
    assert checkpoints.best_step(tmp_path, psnr | {9: 99.0}) == 10
    assert_state(checkpoints.read_state(tmp_path, 10, abstract(make_state(0))), 10)


def test_without_validation_the_newest_is_the_best(tmp_path):
    for step in (8, 9, 10):
        save(tmp_path, step)
    assert checkpoints.steps(tmp_path) == [9, 10]
    assert checkpoints.best_step(tmp_path, {}) == 10


def test_a_workdir_without_checkpoints(tmp_path):
    assert checkpoints.steps(tmp_path) == []
    assert read_newest(tmp_path) is None
    with pytest.raises(InputError, match="has no complete checkpoint; train it first"):
        checkpoints.best_step(tmp_path, {})
    with pytest.raises(InputError, match="checkpoints/3' is no complete checkpoint"):
        checkpoints.read_state(tmp_path, 3, abstract(make_state(0)))


def test_every_number_comes_back_bit_for_bit(tmp_path):
    odd = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 3.4e38], np.float32)
    state = TrainState(
        step=np.array(2**31 - 1, np.int32),
        params={"odd": odd, "scalar": np.array(-0.0, np.float32)},
        ema_params={"odd": odd[::-1].copy(), "scalar": np.array(1, np.float32)},
        model_state={"batch_stats": {"mean": np.ones((2, 1, 3), np.float32)}},
        opt_state=(optax.EmptyState(), {"half": np.asarray(jnp.asarray(odd, jnp.bfloat16))}),
    )
    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(state, 7, {})
    found = checkpoints.read_newest(tmp_path, abstract(state))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


DAMAGES = {
    "deleted": lambda file: file.unlink(),
    "emptied": lambda file: file.write_bytes(b""),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_whichever_file_is_damaged_the_state_is_whole_or_the_one_before(
    two, tmp_path, caplog, damage
):
    newest = two / "checkpoints" / "3"
    files = [path.relative_to(two) for path in sorted(newest.rglob("*")) if path.is_file()]
    fallen_back = 0
    for number, file in enumerate(files):
        workdir = shutil.copytree(two, tmp_path / str(number))
        DAMAGES[damage](workdir / file)
        before = contents(workdir / "checkpoints" / "3")
        caplog.clear()
        state = read_newest(workdir)
        if "3" in names(workdir):  # Orbax does not need this file
            assert_state(state, 3)
            assert names(workdir) == ["2", "3"]
            assert not caplog.records
            continue
        fallen_back += 1
        assert_state(state, 2)
        aside, kept = sorted(names(workdir), reverse=True)
        assert (aside[: len("damaged-3-")], kept) == ("damaged-3-", "2")
        assert contents(workdir / "checkpoints" / aside) == before
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "checkpoints/3' is damaged" in record.getMessage()
        assert aside in record.getMessage()
        assert checkpoints.steps(workdir) == [2]
        assert_state(read_newest(workdir), 2)  # now without a word
        assert len(caplog.records) == 1
    # Without its structure, its list of arrays or its arrays there is no state.
    assert fallen_back >= 3


@pytest.mark.parametrize("what", ["files", "folders", "another type"])
def test_when_all_are_damaged_nothing_is_touched(workdir, what):
    for step in ("2", "3"):
        folder = workdir / "checkpoints" / step
        if what == "files":
            for file in folder.rglob("*"):
                if file.is_file():
                    file.write_bytes(b"")
        else:
            shutil.rmtree(folder)
            folder.mkdir()
        if what == "another type":
            (folder / "_METADATA").mkdir()
    before = contents(workdir)
    with pytest.raises(InputError, match="checkpoints/3' is damaged or of another network"):
        read_newest(workdir)
    assert contents(workdir) == before


@pytest.mark.parametrize(
    "change",
    [
        {"more": jax.ShapeDtypeStruct((2,), "float32")},
        {"long": jax.ShapeDtypeStruct((64, 66), "float32")},
    ],
    ids=["another array", "another shape"],
)
def test_checkpoints_of_another_network_are_left_where_they_are(workdir, change):
    before = contents(workdir)
    other = abstract(make_state(0))
    other = other.replace(params=other.params | change)
    with pytest.raises(InputError, match="checkpoints/3' is damaged or of another network"):
        checkpoints.read_newest(workdir, other)
    assert contents(workdir) == before


def test_one_byte_that_has_changed_is_noticed(workdir, caplog):
    files = [path for path in (workdir / "checkpoints" / "3").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"):
        checkpoints.read_variables(workdir, 3)
    assert_state(read_newest(workdir), 2)
    assert "is damaged" in caplog.records[0].getMessage()


@pytest.mark.parametrize("averaged", [False, True])
def test_the_trained_parameters_are_read_without_knowing_the_network(tmp_path, averaged):
    """Of a state whose optimizer's part is of types that only the training knows."""
    params = {"b_10": {"kernel": np.ones((3, 2), np.float32)}, "b_9": np.arange(4, dtype="f")}
    average = {"b_10": {"kernel": np.zeros((3, 2), np.float32)}, "b_9": -np.arange(4, dtype="f")}
    statistics = {"batch_stats": {"mean": np.full(3, 0.5, np.float32)}}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    opt_state = jax.tree.map(np.asarray, optimizer.init(params))
    state = TrainState(
        np.array(5, np.int32), params, average if averaged else None, statistics, opt_state
    )
    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(state, 5, {})
    found = checkpoints.read_variables(tmp_path, 5)
    expected = {"params": average if averaged else params, **statistics}
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    with pytest.raises(InputError, match="is no complete checkpoint"):
        checkpoints.read_variables(tmp_path, 6)


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_half_deleted_checkpoint_falls_back_to_the_one_before(workdir, caplog, left):
    folder = workdir / "checkpoints" / "3"
    shutil.rmtree(folder)
    folder.mkdir()
    if left == "an empty folder":
        (folder / "d").mkdir()
    assert_state(read_newest(workdir), 2)
    assert [name.startswith("damaged-3-") for name in names(workdir)] == [False, True]
    assert len(caplog.records) == 1


def test_several_damaged_ones_are_set_aside_together(workdir, caplog):
    save(workdir, 4)
    shutil.copytree(workdir / "checkpoints" / "3", workdir / "checkpoints" / "2")
    for step in ("3", "4"):
        (workdir / "checkpoints" / step / "_METADATA").unlink()
    state = read_newest(workdir)  # the copy of step 3 under the name of step 2
    assert_state(state, 3)
    assert [name.split("-")[:2] for name in names(workdir)] == [
        ["2"],
        ["damaged", "3"],
        ["damaged", "4"],
    ]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("suffix", ["", "-0", "-1700000000000000"])
def test_what_was_being_written_when_the_process_died_does_not_count(workdir, caplog, suffix):
    unfinished = workdir / "checkpoints" / f"4.orbax-checkpoint-tmp{suffix}"
    shutil.copytree(workdir / "checkpoints" / "3", unfinished)
    assert checkpoints.steps(workdir) == [2, 3]
    assert checkpoints.best_step(workdir, {4: 50.0}) == 3
    assert_state(read_newest(workdir), 3)
    assert not caplog.records
    # Nor does it stand in the way of making the step again.
    save(workdir, 4)
    assert checkpoints.steps(workdir) == [3, 4]
    assert_state(read_newest(workdir), 4)


def test_other_files_in_the_folder_do_not_count(workdir):
    (workdir / "checkpoints" / "5").write_text("")
    (workdir / "checkpoints" / "notes").mkdir()
    (workdir / "checkpoints" / "6 copy").mkdir()
    assert checkpoints.steps(workdir) == [2, 3]
    assert_state(read_newest(workdir), 3)


def test_after_falling_back_the_same_step_is_saved_again(workdir):
    for times in (1, 2):
        (workdir / "checkpoints" / "3" / "_METADATA").write_bytes(b"")
        assert_state(read_newest(workdir), 2)
        save(workdir, 3)
        assert_state(read_newest(workdir), 3)
        assert checkpoints.steps(workdir) == [2, 3]
        assert sum(name.startswith("damaged-3-") for name in names(workdir)) == times


def test_saving_a_step_that_is_there_replaces_it(workdir):
    shutil.copytree(
        workdir / "checkpoints" / "2", workdir / "checkpoints" / "3", dirs_exist_ok=True
    )
    save(workdir, 3)
    assert_state(read_newest(workdir), 3)


@pytest.mark.parametrize("name", ["deleted-2", "deleted-1-1700000000000000000"])
def test_what_a_killed_process_had_begun_to_remove_is_removed(workdir, name):
    shutil.copytree(workdir / "checkpoints" / "2", workdir / "checkpoints" / name)
    assert checkpoints.steps(workdir) == [2, 3]
    save(workdir, 4)
    assert names(workdir) == ["3", "4"]
    assert_state(read_newest(workdir), 4)


@pytest.mark.parametrize("shape", [[10**6, 10**6, 4], [10**5, 10**5, 4]])
def test_arrays_that_are_told_of_and_not_there_take_no_memory(workdir, shape):
    """TensorStore ends the process that asks it for more memory than there is."""
    folder = workdir / "checkpoints" / "3"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()
    (key,) = (key for key in store.list().result() if key.endswith(b"stem.kernel/.zarray"))
    described = json.loads(store.read(key).result().value)
    assert described["shape"] == [3, 3, 4]
    store.write(key, json.dumps(described | {"shape": shape}).encode()).result()
    with pytest.raises(InputError, match=r"it tells of [\d,]+ bytes, and has"):
        checkpoints.read_variables(workdir, 3)
    assert_state(read_newest(workdir), 2)
