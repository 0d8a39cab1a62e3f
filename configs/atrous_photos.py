"""ATROUS_NET for photographs: blur of motion, defocus and Gaussian, noise and JPEG.

  python train.py --config configs/atrous_photos.py --config.data_dir=DIR --workdir runs/photos

What:      64 channels, 5 blocks, 792,675 parameters; random 96x96 patches of every photograph in
           the folder, spoiled anew each time as cameras do (jaxdeblur/data/degrade.py); a share of
           them stays as it is. Starts from the shipped `atrous-cifar`, 9,000 steps of batches of 8,
           a loss in decibels. DIR/train and DIR/val are the splits; without them every tenth
           photograph is held out. Evaluated on its central 256 pixels with Gaussian blur, sigma in
           (0, 3).
Source:    this project; the first stage of the shipped weights `atrous-photo`, whose last one is
           `atrous_photos_motion`. --config.init_from=atrous-photo starts from them.
Expected:  with Gaussian blur as good as `atrous-photo` (docs/results.md) or better, with blur of
           motion worse.
Hardware:  2 CPU cores (AMD EPYC, Zen 5), an hour.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import atrous_cifar_small


def get_config() -> ConfigDict:
    config = atrous_cifar_small.get_config()
    config.dataset = "photos"
    config.data_dir = "photos"
    config.degradation = "camera"
    config.patch_size = 96
    config.eval_patch_size = 256
    config.eval_batch_size = 4
    config.batch_size = 8
    # It knows Gaussian blur already, which leaves the time for the rest.
    config.init_from = "atrous-cifar"
    config.num_steps = 9000
    # L1 hears the badly blurred photographs and lets the others suffer.
    config.loss = "psnr"
    config.grad_clip_norm = 20.0
    # 2e-3, which serves on CIFAR-10, diverges here.
    config.learning_rate = 8e-4
    config.warmup_steps = 500
    return config
