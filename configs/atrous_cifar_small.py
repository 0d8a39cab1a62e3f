"""ATROUS_NET on CIFAR-10, small enough to train on a CPU.

  python train.py --config configs/atrous_cifar_small.py --workdir runs/atrous_cifar_small
  python eval.py  --config configs/atrous_cifar_small.py --workdir runs/atrous_cifar_small

What:      64 channels, 5 blocks, 792,675 parameters; L1; the recipe of `small_recipe`, 8,000 steps
           of batches of 32 at twice its learning rate; the residual sums start at zero.
Source:    the published architecture at a quarter of its width; the recipe is ours.
Expected:  32.75 dB, SSIM 0.9123, MSE 1.78e-3 on 500 test images with eval_repeats=16, trained on
           4,350 images (2026-11-22); 33.57 dB, 0.9179, 1.64e-3 with num_steps=20000 (2026-11-24).
Hardware:  2 CPU cores (AMD EPYC, Zen 3): 129 images a second, the median of metrics.jsonl.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import atrous_cifar, small_recipe


def get_config() -> ConfigDict:
    config = small_recipe.apply(atrous_cifar.get_config())
    config.model_kwargs.num_channels = 64
    config.learning_rate = 2e-3
    with config.unlocked():
        config.model_kwargs.zero_init = True
    return config
