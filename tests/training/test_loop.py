import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file
from small_runs import assert_equal_states, flags, metrics_lines, tiny_config

import jaxdeblur
from jaxdeblur import training
from jaxdeblur.errors import InputError, Preempted, TrainingError
from jaxdeblur.training import runs
from jaxdeblur.workdir import checkpoints

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, training.train_and_evaluate(tiny_config(), workdir)


def test_a_run_writes_metrics_pictures_curves_and_checkpoints(finished):
    workdir, state = finished
    assert int(state.step) == 6
    lines = metrics_lines(workdir)
    trained = [line["step"] for line in lines if "loss" in line]
    evaluated = [line for line in lines if "eval/psnr" in line]
    assert trained == [2, 3, 4, 6]
    assert [line["step"] for line in evaluated] == [3, 6]
    for key in ("eval/ssim", "eval/mse", "eval/blurred_psnr"):
        assert np.isfinite(evaluated[-1][key])
    assert {p.name for p in (workdir / "pictures").iterdir()} == {"00000003.png", "00000006.png"}
    assert (workdir / "curves.png").stat().st_size > 0
    assert list((workdir / "tensorboard").iterdir())
    assert (workdir / "checkpoints" / "6").is_dir()


def test_a_finished_run_is_left_as_it_is(finished):
    workdir, state = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    assert_equal_states(training.train_and_evaluate(tiny_config(), workdir), state)
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_workdir_of_another_configuration_is_refused_and_untouched(finished):
    workdir, _ = finished
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"learning_rate = 0.002.*not 0.5"):
        training.train_and_evaluate(tiny_config(learning_rate=0.5), workdir)
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before


def test_how_often_to_report_may_change_when_a_run_goes_on(finished):
    workdir, state = finished
    config = tiny_config(log_every_steps=1, data_dir="elsewhere")
    assert_equal_states(training.train_and_evaluate(config, workdir), state)


def test_load_takes_a_workdir_and_a_checkpoint(finished):
    workdir, state = finished
    best = jaxdeblur.load(workdir)
    last = jaxdeblur.load(workdir / "checkpoints" / "6")
    scores = {x["step"]: x["eval/psnr"] for x in metrics_lines(workdir) if "eval/psnr" in x}
    assert best.card["trained_on"].startswith(f"skimage, {max(scores, key=scores.get)} steps")
    assert_equal_states(last.params, state.ema_params)
    image = np.zeros((16, 20, 3), np.uint8)
    assert last(image).shape == (16, 20, 3)


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    for file in (workdir / "checkpoints" / "6").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(InputError, match="checkpoints/6"):
        jaxdeblur.load(workdir / "checkpoints" / "6")


def test_a_configuration_that_is_damaged_or_of_another_network_is_told(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    file = workdir / "config.json"
    config = json.loads(file.read_text())
    wider = config | {"model_kwargs": config["model_kwargs"] | {"num_channels": 16}}
    without = {key: value for key, value in config.items() if key != "seed"}
    for content, message in (
        (wider, "does not belong to the network that its config.json names"),
        (without, r"config.json is damaged \(KeyError\('seed'\)\)"),
        (config | {"model_kwargs": 7}, "config.json is damaged"),
        ([], "config.json is damaged"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            jaxdeblur.load(workdir)


# A run that is killed or asked to end, and started again.


def interrupted_config():
    return tiny_config(
        num_steps=40, eval_every_steps=20, checkpoint_every_steps=5, grad_accum_steps=2
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, training.train_and_evaluate(interrupted_config(), workdir)


def steps(workdir):
    return [(x["step"], x.get("loss"), x.get("eval/psnr")) for x in metrics_lines(workdir)]


def evaluations(workdir):
    return [line for line in metrics_lines(workdir) if "eval/psnr" in line]


def command(config, workdir):
    script = [sys.executable, "train.py", "--config", "configs/quickstart.py", *flags(config)]
    return [*script, "--workdir", str(workdir)]


def signal_while(is_time, command, number):
    """Starts a run, sends it a signal once it is time, and returns its status and last words."""
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not is_time():
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before the signal"
    process.send_signal(number)
    _, output = process.communicate(timeout=120)
    return process.returncode, output.splitlines()[-1]


def has_lines(workdir, count):
    file = workdir / "metrics.jsonl"
    return file.exists() and len(file.read_text().splitlines()) >= count


@pytest.mark.slow
def test_killed_and_started_again_a_run_ends_with_the_same_parameters(undisturbed, tmp_path):
    config = interrupted_config()
    start = command(config, tmp_path)
    status, _ = signal_while(lambda: has_lines(tmp_path, 8), start, signal.SIGKILL)
    assert status == -signal.SIGKILL
    subprocess.run(start, cwd=ROOT, check=True)
    resumed = training.train_and_evaluate(config, tmp_path)  # finished: only read back
    assert_equal_states(resumed, undisturbed[1])
    assert steps(tmp_path) == steps(undisturbed[0])


@pytest.mark.slow
def test_asked_to_end_a_run_saves_the_very_step_and_goes_on_from_it(undisturbed, tmp_path):
    config = interrupted_config()
    start = command(config, tmp_path)
    status, line = signal_while(lambda: has_lines(tmp_path, 8), start, signal.SIGTERM)
    assert status == 0
    words = rf"asked to end: step (\d+) is saved in {tmp_path}; the same command goes on from there"
    step = int(re.fullmatch(words, line)[1])
    assert 10 <= step < 40
    assert checkpoints.steps(tmp_path)[-1] == metrics_lines(tmp_path)[-1]["step"] == step
    resumed = training.train_and_evaluate(config, tmp_path)
    assert_equal_states(resumed, undisturbed[1])
    assert evaluations(tmp_path) == evaluations(undisturbed[0])


@pytest.mark.slow
def test_asked_to_end_during_an_evaluation_a_run_ends_with_the_status_it_was_told(
    undisturbed, tmp_path
):
    # Hours of evaluation, while which the step is already saved.
    start = command(interrupted_config(), tmp_path)
    start += ["--config.eval_repeats=1000000", "--preempted_status=75"]
    status, line = signal_while(
        lambda: checkpoints.steps(tmp_path)[-1:] == [20], start, signal.SIGTERM
    )
    assert status == 75
    assert line.startswith("asked to end: step 20 is saved")
    assert checkpoints.steps(tmp_path)[-1] == 20
    assert evaluations(tmp_path) == []
    resumed = training.train_and_evaluate(interrupted_config(), tmp_path)
    assert_equal_states(resumed, undisturbed[1])
    assert evaluations(tmp_path) == evaluations(undisturbed[0])


def test_asked_to_end_again_and_again_a_run_loses_and_repeats_nothing(
    finished, tmp_path, monkeypatch
):
    """At a step's end, before an evaluation, and while the last step is being saved."""
    made, asked = [], []
    ask = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
    step, save = runs.Run.step, runs.Run.save

    def step_and_ask(self, number):
        made.append(number)
        step(self, number)
        if number in (1, 3):
            ask()

    def save_and_ask(self, state, number):
        save(self, state, number)
        if number == 6:
            ask()

    monkeypatch.setattr(runs.Run, "step", step_and_ask)
    monkeypatch.setattr(runs.Run, "save", save_and_ask)
    before = signal.getsignal(signal.SIGTERM)
    state = None
    while state is None:
        try:
            state = training.train_and_evaluate(tiny_config(), tmp_path)
        except Preempted as error:
            asked.append(int(re.search(r"step (\d+) is saved", str(error))[1]))
            assert checkpoints.steps(tmp_path)[-1] == asked[-1]
            assert signal.getsignal(signal.SIGTERM) is before
        assert len(asked) < 4
    assert asked == [1, 3, 6]
    assert made == [1, 2, 3, 4, 5, 6]
    assert_equal_states(state, finished[1])
    assert evaluations(tmp_path) == evaluations(finished[0])


def test_a_run_killed_before_its_last_evaluation_makes_it_when_started_again(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    text = (workdir / "metrics.jsonl").read_text()
    *others, last = text.splitlines(keepends=True)
    assert '"eval/psnr"' in last
    (workdir / "metrics.jsonl").write_text("".join(others))
    before = {p: p.read_bytes() for p in workdir.glob("checkpoints/**/*") if p.is_file()}
    assert_equal_states(training.train_and_evaluate(tiny_config(), workdir), finished[1])
    assert (workdir / "metrics.jsonl").read_text() == text
    assert {p: p.read_bytes() for p in workdir.glob("checkpoints/**/*") if p.is_file()} == before


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(finished, tmp_path, caplog):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    (workdir / "checkpoints" / "6" / "_METADATA").write_bytes(b"")
    with (workdir / "metrics.jsonl").open("a") as file:  # of steps that are made again
        file.write('{"step": 7, "loss": 1.0}\n{"step": 8, "lo')
    assert_equal_states(training.train_and_evaluate(tiny_config(), workdir), finished[1])
    assert steps(workdir) == steps(finished[0])
    assert checkpoints.steps(workdir)[-1] == 6
    assert [x.getMessage() for x in caplog.records if "is damaged" in x.getMessage()]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"shard_state": True, "grad_accum_steps": 2}])
def test_two_devices_train_like_one(tmp_path, monkeypatch, changes):
    config = tiny_config(num_steps=3)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    start = command(tiny_config(num_steps=3, **changes), tmp_path / "two")
    subprocess.run(start, cwd=ROOT, check=True)
    two = jaxdeblur.load(tmp_path / "two" / "checkpoints" / "3")
    one = training.train_and_evaluate(config, tmp_path / "one")
    for x, y in zip(jax.tree.leaves(two.params), jax.tree.leaves(one.ema_params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_a_batch_in_parts_trains_like_a_whole_one(undisturbed, finished):
    # Both are still warming up: their first steps are the same.
    first, whole = (metrics_lines(workdir)[0] for workdir, _ in (undisturbed, finished))
    assert first["step"] == whole["step"] == 2
    assert first["samples"] == whole["samples"]
    for key in ("loss", "psnr", "blurred_psnr", "grad_norm"):
        assert first[key] == pytest.approx(whole[key], rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    config = tiny_config(learning_rate=1e30, warmup_steps=0, grad_clip_norm=0.0)
    with pytest.raises(TrainingError, match=r"at step \d+; last good checkpoint: "):
        training.train_and_evaluate(config, tmp_path / "run")
    for step in (p.name for p in (tmp_path / "run" / "checkpoints").iterdir()):
        params = jaxdeblur.load(tmp_path / "run" / "checkpoints" / step).params
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_bfloat16_trains_float32_parameters(tmp_path):
    config = tiny_config(num_steps=2, dtype="bfloat16", loss="charbonnier")
    state = training.train_and_evaluate(config, tmp_path)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}
    assert all(np.isfinite(line.get("loss", 0)) for line in metrics_lines(tmp_path))


def test_too_few_images_for_a_batch_and_an_unwritable_workdir_are_named(tmp_path):
    with pytest.raises(InputError, match=r"num_epochs = 1 of 4 images is less than one batch of 8"):
        training.train_and_evaluate(
            tiny_config(num_steps=0, num_epochs=1, batch_size=8), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"workdir = .*file.* cannot be written"):
        training.train_and_evaluate(tiny_config(), tmp_path / "file" / "run")


def test_a_run_starts_from_trained_parameters(finished, tmp_path):
    workdir, first = finished
    # So small a rate that the parameters hardly move.
    shutil.copytree(workdir, tmp_path / "first")
    last = str(tmp_path / "first" / "checkpoints" / "6")
    config = tiny_config(init_from=last, num_steps=1, learning_rate=1e-9, seed=5)
    state = training.train_and_evaluate(config, tmp_path / "second")
    for old, new, average in zip(
        jax.tree.leaves(first.ema_params),
        jax.tree.leaves(state.params),
        jax.tree.leaves(state.ema_params),
        strict=True,
    ):
        np.testing.assert_allclose(new, old, rtol=0, atol=1e-7)
        np.testing.assert_allclose(average, old, rtol=0, atol=1e-7)
    # A run that goes on keeps what it has learned, even when the first is gone.
    shutil.rmtree(tmp_path / "first")
    again = training.train_and_evaluate(config, tmp_path / "second")
    assert_equal_states(again, state)


def test_parameters_of_another_network_are_refused(finished, tmp_path):
    workdir, _ = finished
    config = tiny_config(init_from=str(workdir))
    config.model_kwargs.num_channels = 16
    with pytest.raises(InputError, match=r"config.init_from = .* do not belong together"):
        training.train_and_evaluate(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    save_file({"x": np.zeros(100, np.float32)}, tmp_path / "damaged.safetensors")
    whole = (tmp_path / "damaged.safetensors").read_bytes()
    (tmp_path / "damaged.safetensors").write_bytes(whole[: len(whole) // 2])
    for source, message in (
        ("nothing", "is no weights file"),
        (str(tmp_path / "damaged.safetensors"), "is not a whole safetensors file"),
    ):
        with pytest.raises(InputError, match=message):
            training.train_and_evaluate(tiny_config(init_from=source), tmp_path / "other")
        assert not (tmp_path / "other").exists()


# Networks that are trained otherwise.

NETWORKS = {
    "nafnet": {
        "model_kwargs": {"width": 4, "encoder_blocks": (1,), "decoder_blocks": (1,)},
        "loss": "negative_psnr",
        "adam_b1": 0.9,
        "adam_b2": 0.9,
        "weight_decay": 1e-3,
        "grad_clip_norm": 0.01,
    },
    "maxim": {
        "model_kwargs": {
            "num_features": 4,
            "num_stages": 1,
            "num_groups": 1,
            "num_bottleneck_blocks": 1,
        },
        "patch_size": 64,
        "eval_patch_size": 64,
        "batch_size": 2,
        "eval_batch_size": 2,
        "loss": "charbonnier_frequency",
        "mixup": 0.5,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("network", ["nafnet", "maxim"])
def test_networks_of_others_are_trained_and_go_on_bit_for_bit(network, tmp_path):
    changes = dict(NETWORKS[network])
    config = tiny_config(
        model=network, num_steps=2, eval_every_steps=2, checkpoint_every_steps=1,
        log_every_steps=1, schedule="cosine", final_learning_rate=1e-7, warmup_steps=0,
    )  # fmt: skip
    with config.unlocked():
        config.model_kwargs = ConfigDict(changes.pop("model_kwargs"))
    config.update(changes)
    state = training.train_and_evaluate(config, tmp_path)
    before = metrics_lines(tmp_path)
    assert all(np.isfinite(line.get("loss", 0)) for line in before)
    shutil.rmtree(tmp_path / "checkpoints" / "2")
    (first,) = checkpoints.steps(tmp_path)
    moved = jaxdeblur.load(tmp_path / "checkpoints" / "1").params
    assert first == 1
    assert any(
        (x != y).any()
        for x, y in zip(jax.tree.leaves(moved), jax.tree.leaves(state.ema_params), strict=True)
    )
    assert_equal_states(training.train_and_evaluate(config, tmp_path), state)
    assert evaluations(tmp_path)[-1] == [line for line in before if "eval/psnr" in line][-1]
    assert type(jaxdeblur.load(tmp_path).module).__name__.lower() == network
