import functools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from skimage.metrics import peak_signal_noise_ratio

import jaxdeblur
from configs import quickstart
from jaxdeblur import losses, optimizer, train_step, training
from jaxdeblur.data.blur import make_pair
from jaxdeblur.errors import InputError, TrainingError
from jaxdeblur.models import AtrousNet

ROOT = Path(__file__).parents[1]


def tiny_config(**overrides):
    config = quickstart.get_config()
    config.model_kwargs.num_channels = 8
    config.model_kwargs.num_blocks = 1
    config.patch_size = config.eval_patch_size = 16
    config.min_sigma, config.max_sigma = 0.0, 1.0
    config.batch_size = config.eval_batch_size = 4
    config.num_steps = 6
    config.learning_rate = 2e-3
    config.log_every_steps = 2
    config.eval_every_steps = 3
    config.checkpoint_every_steps = 2
    config.eval_repeats = 1
    config.update(overrides)
    return config


def flags(config):
    """The command-line form of what `tiny_config` changes in the quickstart."""
    default, tiny = (flatten_dict(c.to_dict(), sep=".") for c in (quickstart.get_config(), config))
    return [f"--config.{key}={value}" for key, value in tiny.items() if value != default[key]]


def metrics_lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_equal_states(a, b):
    for (path, x), (_, y) in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree_util.tree_leaves_with_path(b), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


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
    import shutil

    workdir = tmp_path / "copy"
    shutil.copytree(finished[0], workdir)
    for file in (workdir / "checkpoints" / "6" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(InputError, match="checkpoints/6"):
        jaxdeblur.load(workdir / "checkpoints" / "6")


def test_killed_and_started_again_a_run_ends_with_the_same_parameters(tmp_path):
    config = tiny_config(num_steps=40, eval_every_steps=20, checkpoint_every_steps=5)
    command = [sys.executable, "train.py", "--config", "configs/quickstart.py", *flags(config)]

    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, "--workdir", str(killed)], cwd=ROOT)
    deadline = time.monotonic() + 120
    metrics_file = killed / "metrics.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        if metrics_file.exists() and len(metrics_file.read_text().splitlines()) >= 8:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    subprocess.run([*command, "--workdir", str(killed)], cwd=ROOT, check=True)

    undisturbed = training.train_and_evaluate(config, tmp_path / "undisturbed")
    resumed = training.train_and_evaluate(config, killed)  # finished: only read back
    assert_equal_states(resumed, undisturbed)

    def steps(workdir):
        return [(x["step"], x.get("loss"), x.get("eval/psnr")) for x in metrics_lines(workdir)]

    assert steps(killed) == steps(tmp_path / "undisturbed")


@pytest.mark.slow
def test_two_devices_train_like_one(tmp_path, monkeypatch):
    config = tiny_config(num_steps=3)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    command = [sys.executable, "train.py", "--config", "configs/quickstart.py", *flags(config)]
    subprocess.run([*command, "--workdir", str(tmp_path / "two")], cwd=ROOT, check=True)
    two = jaxdeblur.load(tmp_path / "two" / "checkpoints" / "3")
    one = training.train_and_evaluate(config, tmp_path / "one")
    for x, y in zip(jax.tree.leaves(two.params), jax.tree.leaves(one.ema_params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


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


def test_metrics_of_steps_after_the_last_checkpoint_are_dropped(tmp_path):
    config = tiny_config(num_steps=2)
    training.train_and_evaluate(config, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    training.train_and_evaluate(config, tmp_path)
    assert max(line["step"] for line in metrics_lines(tmp_path)) == 2


@pytest.fixture
def step_and_state():
    module = AtrousNet(num_channels=8, num_blocks=1)
    optimizer = optax.sgd(0.1)
    options = {"module": module, "optimizer": optimizer}
    init = functools.partial(train_step.create_state, **options, patch_size=16, channels=3, ema=True)
    step = functools.partial(
        train_step.train_step, **options, loss=losses.l1, ema_decay=0.9, max_sigma=1.0
    )
    return module, jax.jit(step), jax.jit(init)(jax.random.key(0))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
    return {"sharp": sharp, "sigma": rng.uniform(0, 1, 4).astype(np.float32)}


def test_train_step_moves_against_the_gradient_and_averages(step_and_state, batch):
    module, step, state = step_and_state
    blurred, sharp = jax.jit(make_pair, static_argnums=1)(batch, 1.0)
    loss = jax.jit(lambda p: jnp.abs(module.apply({"params": p}, blurred) - sharp).mean())
    grads = jax.jit(jax.grad(loss))(state.params)
    after, measured = step(state, batch)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    # The first step averages with (1 + 0) / (10 + 0).
    average = jax.tree.map(lambda p, q: 0.1 * p + 0.9 * q, state.params, expected)
    for tree, reference in ((after.params, expected), (after.ema_params, average)):
        for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-6)
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(measured["grad_norm"], norm, rtol=1e-5)
    restored = np.clip(jax.jit(module.apply)({"params": state.params}, blurred), 0, 1)
    psnr = peak_signal_noise_ratio(np.asarray(sharp), restored, data_range=1)
    np.testing.assert_allclose(measured["psnr"], psnr, rtol=1e-5)
    assert int(after.step) == 1


def test_batch_statistics_are_carried_along(batch):
    module = AtrousNet(num_channels=8, num_blocks=1, batch_norm=True)
    optimizer = optax.sgd(0.1)
    options = {"module": module, "optimizer": optimizer}
    init = functools.partial(train_step.create_state, **options, patch_size=16, channels=3, ema=False)
    state = jax.jit(init)(jax.random.key(0))
    step = functools.partial(
        train_step.train_step, **options, loss=losses.l1, ema_decay=0.0, max_sigma=1.0
    )
    after, _ = jax.jit(step)(state, batch)
    before, now = (jax.tree.leaves(s.model_state["batch_stats"]) for s in (state, after))
    assert any((x != y).any() for x, y in zip(before, now, strict=True))
    assert after.ema_params is None


def test_each_gradient_is_clipped_by_its_own_norm():
    grads = {"long": jnp.array([3.0, 4.0]), "short": jnp.array([0.3, 0.4]), "zero": jnp.zeros(2)}
    clipped, _ = optimizer.clip_each_by_norm(1.0).update(grads, optax.EmptyState())
    np.testing.assert_allclose(clipped["long"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(clipped["short"], [0.3, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(clipped["zero"], [0, 0])


def test_the_optimizer_is_adam_with_warm_up_and_cosine():
    torch = pytest.importorskip("torch")
    config = tiny_config(
        learning_rate=0.1,
        schedule="cosine",
        warmup_steps=2,
        grad_clip_norm=1.0,
        grad_clip="global",
        adam_b2=0.9,
    )
    adam = optimizer.make_optimizer(config, num_steps=10)
    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    opt_state = adam.init(params)
    weight = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    reference = torch.optim.Adam([weight], lr=1.0, betas=(0.9, 0.9), eps=1e-8)
    rates = [0.0, 0.05, *(0.05 * (1 + np.cos(np.pi * i / 8)) for i in range(8))]
    for i, rate in enumerate(rates):
        grad = np.array([1.0, 2.0, -1.0]) * (i + 1)
        reference.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(grad / max(1, np.linalg.norm(grad)), dtype=torch.float32)
        reference.step()
        updates, opt_state = adam.update({"w": jnp.array(grad)}, opt_state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], weight.detach().numpy(), atol=1e-5)


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
    with pytest.raises(InputError, match="is no weights file"):
        training.train_and_evaluate(tiny_config(init_from="nothing"), tmp_path / "other")
