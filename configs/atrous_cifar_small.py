"""ATROUS_NET on CIFAR-10, small: 64 channels, 5 blocks, 0.79 M parameters; trains on a CPU.

The published architecture at a quarter of its width, with a better recipe than the published one:
fresh blur every time, flips and turns, cosine schedule, averaged parameters.
"""

from ml_collections import ConfigDict

from configs import atrous_cifar


def get_config() -> ConfigDict:
    config = atrous_cifar.get_config()
    config.model_kwargs.num_channels = 64

    config.fresh_sigma = True
    config.flip = True
    config.rotate = True

    config.batch_size = 16
    config.num_steps = 8000
    config.learning_rate = 1e-3
    config.schedule = "cosine"
    config.warmup_steps = 200
    config.grad_clip = "global"
    config.ema_decay = 0.999
    return config
