"""KAIST_NET on REDS, small enough to train on a CPU.

  python train.py --config configs/kaist_reds_small.py --config.data_dir=DIR \
    --workdir runs/kaist_reds_small
  python eval.py  --config configs/kaist_reds_small.py --config.data_dir=DIR \
    --workdir runs/kaist_reds_small --config.eval_patch_size=0

What:      2 outer and 1 inner block, half the width, three frames in; 2,000 steps of batches of 4
           random 128x128 crops, changed as in the published recipe (reds_recipe), optimised as in
           small_recipe.
Source:    the published architecture at a fraction of its width and depth; the recipe is ours.
Expected:  25.06 dB from 24.11 dB blurred on 2 validation clips of 10 frames (whole, 320x180),
           trained on 2 clips of 10 (2026-11-23).
Hardware:  2 CPU cores (AMD EPYC, Zen 5): a quarter of an hour.
"""

from ml_collections import ConfigDict

from configs import kaist_reds, reds_recipe


def get_config() -> ConfigDict:
    config = reds_recipe.apply_small(kaist_reds.get_config())
    config.model_kwargs.num_blocks = 2
    config.model_kwargs.num_inner_blocks = 1
    config.model_kwargs.num_channels = 16
    with config.unlocked():
        config.model_kwargs.zero_init = True
    config.learning_rate = 8e-4
    return config
