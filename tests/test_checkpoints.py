import grain
import jax.numpy as jnp
import optax

from jaxdeblur import checkpoints
from jaxdeblur.training import TrainState


def save(workdir, step, psnr=None):
    """Saves one checkpoint as a process of its own would."""
    state = TrainState(jnp.int32(step), {"w": jnp.ones(2)}, None, {}, optax.EmptyState())
    batches = iter(grain.MapDataset.range(10).to_iter_dataset())
    with checkpoints.Checkpoints(workdir) as saved:
        saved.save(state, batches, step, None if psnr is None else {"psnr": psnr})


def kept(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_the_best_and_the_newest_two_are_kept_from_process_to_process(tmp_path):
    for step, psnr in enumerate([None, 30.0, 31.0, None, 29.0, None], start=1):
        save(tmp_path, step, psnr)
    assert kept(tmp_path) == [3, 5, 6]
    assert checkpoints.best_step(tmp_path) == 3


def test_without_validation_the_newest_is_the_best(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert kept(tmp_path)[-2:] == [2, 3]
    assert checkpoints.best_step(tmp_path) == 3
