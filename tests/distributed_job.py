"""What tests/test_distributed.py runs as one or as two processes: leaves `result.npz` and files.

python tests/distributed_job.py OUT [ADDRESS NUMBER COUNT]
"""

import sys
from pathlib import Path

import jax
import numpy as np

from jaxdeblur import evaluation, training
from jaxdeblur.configs import atrous_reds_small, quickstart
from jaxdeblur.data import datasets
from jaxdeblur.errors import InputError
from jaxdeblur.runtime import cluster, distributed
from jaxdeblur.training.state import make_parts


def training_config(**overrides):
    config = quickstart.get_config()
    config.model_kwargs.num_channels = 8
    config.model_kwargs.num_blocks = 1
    config.update(
        {
            "patch_size": 16,
            "eval_patch_size": 16,
            "min_sigma": 0.0,
            "max_sigma": 1.0,
            "batch_size": 8,
            "eval_batch_size": 4,  # of 2 images, 3 times: the last batch is half full
            "eval_repeats": 3,
            "num_steps": 6,
            "log_every_steps": 1,
            "eval_every_steps": 6,
            "checkpoint_every_steps": 3,
        }
        | overrides
    )
    return config


def frames_config(folder, size):
    config = atrous_reds_small.get_config()
    config.model_kwargs.num_channels = 8
    config.model_kwargs.num_blocks = 1
    config.update({"dataset": "clips", "data_dir": str(folder), "eval_patch_size": size})
    config.update({"eval_batch_size": 4, "eval_repeats": 1})
    return config


def evaluated(config, module, variables):
    source = datasets.open_source(config, "val")
    result = evaluation.Evaluator(config, source, module, 9)(variables, num_pictures=2)
    return result


def main(out: Path) -> None:
    result = {}
    for name, divided in (("whole", False), ("divided", True)):
        state = training.train_and_evaluate(
            training_config(shard_state=divided), out / f"run_{name}"
        )
        if divided:
            kernel = max(jax.tree.leaves(state.params), key=lambda x: x.size)
            share = kernel.addressable_shards[0].data.size / kernel.size
            result["share"] = np.array(share)
        state = distributed.gathered(state)
        for i, x in enumerate(jax.tree.leaves((state.params, state.ema_params))):
            result[f"{name}{i:03d}"] = np.asarray(x)

    if (out / "resumed").exists():  # another number of processes began it
        training.train_and_evaluate(training_config(), out / "resumed")

    module, _, init = make_parts(frames_config(out.parent / "clips", 0), 1, 9)
    variables = {"params": jax.jit(init)(jax.random.key(0)).params}
    variables = distributed.to_devices(variables, distributed.shardings()[0])
    for name, size in (("frames", 0), ("crops", 16)):
        measured = evaluated(frames_config(out.parent / "clips", size), module, variables)
        for metric, values in measured.rows.items():
            result[f"{name}_{metric}"] = values
        result[f"{name}_shown"] = np.array(measured.shown)

    folder, table = out / "results", out / "results.csv"
    summary = evaluation.run(
        training_config(), source=out / "run_whole", output=folder, table=table
    )
    result["psnr"] = np.array(summary["psnr"])
    own = jax.process_index()
    result["rows"] = distributed.gather_rows(np.full((own + 1, 2), own, np.float32))
    exact = np.array([-0.0, np.nan, np.inf, 1e-42, 3.25], np.float32)
    sent = exact if own == 0 else np.zeros_like(exact)
    result["broadcast"] = distributed.broadcast(sent).view(np.uint32)
    try:
        with distributed.together():
            if own == jax.process_count() - 1:
                raise InputError("nothing there")
    except InputError as error:
        result["error"] = np.array(str(error))
    if distributed.is_main():
        np.savez(out / "result.npz", **result)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    launch = None
    if len(sys.argv) > 2:
        launch = cluster.Launch("a test", int(sys.argv[3]), int(sys.argv[4]), sys.argv[2])
    with cluster.joined(launch):
        main(folder)
