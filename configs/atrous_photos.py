"""ATROUS_NET on a folder of your own photographs.

  python train.py --config configs/atrous_photos.py --config.data_dir=DIR --workdir runs/photos

What:      64 channels, 5 blocks, 792,675 parameters; random 64x64 patches of every photograph in
           the folder, Gaussian blur with sigma in (0, 3). DIR/train and DIR/val are the splits;
           without them every tenth photograph is held out, its central 64 pixels evaluated.
Source:    this project.
Expected:  depends on the photographs.
"""

from ml_collections import ConfigDict

from configs import atrous_cifar_small


def get_config() -> ConfigDict:
    config = atrous_cifar_small.get_config()
    config.dataset = "photos"
    config.data_dir = "photos"
    config.patch_size = 64
    config.eval_patch_size = 64
    return config
