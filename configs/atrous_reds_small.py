"""ATROUS_NET on REDS, small enough to train on a CPU.

  python train.py --config configs/atrous_reds_small.py --config.data_dir=DIR \
    --workdir runs/atrous_reds_small
  python eval.py  --config configs/atrous_reds_small.py --config.data_dir=DIR \
    --workdir runs/atrous_reds_small --config.eval_patch_size=0

What:      64 channels, 5 blocks, 808,227 parameters, three frames in; 2,500 steps of batches of
           4 random 128x128 crops, changed as in the published recipe (reds_recipe), optimised as
           in small_recipe, with a loss in decibels. --config.photo_dir=PHOTOS takes half of the
           samples from photographs, past which a camera moves.
Source:    the published architecture at a fraction of its width and depth; the recipe is ours.
Expected:  docs/results.md has what the shipped `atrous-reds` reaches, trained by it, with
           photographs.
Hardware:  2 CPU cores (AMD EPYC, Zen 5): a quarter of an hour.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import atrous_reds, reds_recipe


def get_config() -> ConfigDict:
    config = reds_recipe.apply_small(atrous_reds.get_config())
    config.model_kwargs.num_channels = 64
    config.model_kwargs.num_blocks = 5
    with config.unlocked():
        config.model_kwargs.zero_init = True
    config.learning_rate = 8e-4
    return config
