"""CARLO_NET on CIFAR-10, small enough to train on a CPU.

  python train.py --config configs/carlo_cifar_small.py --workdir runs/carlo

What:      64 filters, 668,227 parameters, kernels that start He-normal; a loss in decibels, else
           the recipe of `small_recipe`, 8,000 steps of batches of 32 at twice its learning rate.
           1,500 steps more with a loss of structure raise SSIM and lower PSNR; weights in between
           have most of both:

  python train.py --config configs/carlo_cifar_small.py --workdir runs/carlo_ssim \
    --config.init_from=runs/carlo/checkpoints/8000 --config.loss=ssim_l1 \
    --config.grad_clip_norm=1.0 --config.learning_rate=1e-3 --config.num_steps=1500 \
    --config.warmup_steps=100 --config.ema_decay=0.995
  python tools/combine.py runs/carlo.safetensors --base runs/carlo/checkpoints/8000 \
    --add runs/carlo_ssim/checkpoints/1500 0.7

Source:    the published architecture at half its width; the recipe is ours.
Expected:  held-out images at 29.78 dB and SSIM 0.8975 after the first run, 29.09 and 0.9062 after
           the second (`eval/psnr`, `eval/ssim` at the end of metrics.jsonl, 2026-11-27).
           docs/results.md has what those in between, shipped as `carlo-cifar`, reach on the test
           images.
Hardware:  one core of an Intel Xeon (AVX-512): 60 images a second, 75 minutes and 16.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import carlo_cifar, small_recipe


def get_config() -> ConfigDict:
    config = small_recipe.apply(carlo_cifar.get_config())
    config.model_kwargs.num_filters = 64
    with config.unlocked():
        config.model_kwargs.he_init = True
    config.learning_rate = 2e-3
    config.loss = "psnr"
    config.grad_clip_norm = 20.0
    return config
