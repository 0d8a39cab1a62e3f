"""The recipes on REDS, the published one and the small one; no experiment by itself.

Source: Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020
(github.com/MarcelloSimonati/DeepImageDeblurring), after Sim & Kim, CVPRW 2019. The learning rate,
and how small the "small" change of brightness is, are not published: 1e-4 (of `default`) and 0.05
are our choice.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import small_recipe


def apply(config: ConfigDict) -> ConfigDict:
    """Replaces the recipe for CIFAR-10 in a configuration."""
    config.dataset = "reds"
    config.data_dir = "REDS"
    config.patch_size = 256
    config.flip = True
    config.rotate = True
    config.frame_shift = 2
    config.brightness = 0.05

    config.batch_size = 4
    config.eval_every_steps = 6000  # an epoch of 24,000 frames
    config.checkpoint_every_steps = 1000

    config.eval_patch_size = 256
    config.eval_batch_size = 4
    return config


def apply_small(config: ConfigDict) -> ConfigDict:
    """Replaces the published recipe on REDS by that of the `*_reds_small` configurations."""
    config = small_recipe.apply(config)
    config.patch_size = 128
    config.eval_patch_size = 128
    config.batch_size = 4
    config.loss = "psnr"
    config.grad_clip_norm = 20.0
    config.num_steps = 2500
    config.eval_every_steps = 500
    config.checkpoint_every_steps = 250
    return config
