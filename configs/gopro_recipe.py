"""What trainings of other authors' networks on GoPro share; no experiment by itself.

Single frames, random squares of 256 pixels, mirrored and turned. Evaluated on whole frames.
"""

from ml_collections import ConfigDict


def apply(config: ConfigDict) -> ConfigDict:
    """Replaces the recipe for CIFAR-10 in a configuration."""
    config.dataset = "gopro"
    config.data_dir = "GoPro"
    config.num_frames = 1
    config.patch_size = 256
    config.flip = True
    config.rotate = True

    config.schedule = "cosine"
    config.final_learning_rate = 1e-7
    config.grad_clip = "global"

    config.eval_patch_size = 0
    config.eval_batch_size = 8
    config.eval_every_steps = 20_000
    config.checkpoint_every_steps = 5000
    return config
