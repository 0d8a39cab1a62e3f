"""ATROUS_NET on CIFAR-10."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model = "atrous_net"
    with config.unlocked():
        config.model_kwargs = ConfigDict({"num_channels": 256, "num_blocks": 5})
    config.loss = "l1"
    config.batch_size = 32
    config.num_epochs = 29
    return config
