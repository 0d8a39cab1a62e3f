"""NAFNet for photographs, small enough for a CPU: blur of motion, defocus and Gaussian, and none.

  python train.py --config configs/nafnet_photos.py --config.data_dir=DIR/reds \
    --config.photo_dir=DIR/photos --workdir runs/nafnet_photos

What:      width 24, 1-1-1-6 blocks, 3.9 million parameters. Random 128x128 patches; a quarter of
           pairs of REDS at full size, the others of photographs, blurred anew each time
           (jaxdeblur/data/scenes.py): paths up to 44 pixels, at times with something in front that
           moves otherwise. A fifth needs no restoring, and stays as it is. A loss in decibels.
           The learning rate is constant, so that a run can be as long as there is time; a last
           one lets it fall: --config.init_from=CHECKPOINT --config.schedule=cosine.
Source:    Chen et al., "Simple Baselines for Image Restoration", ECCV 2022; size and recipe ours.
Data:      DIR/reds as for `atrous_reds_small`, of full size; DIR/photos holds train/ and val/.
Expected:  no weights of it are shipped yet.
Hardware:  2 CPU cores: a second for a step of 8 patches (AMD EPYC, Zen 4).
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model = "nafnet"
    with config.unlocked():
        config.model_kwargs.width = 24
        config.model_kwargs.encoder_blocks = (1, 1, 1, 6)
        config.model_kwargs.window = 192  # 1.5 patches

    config.dataset = "reds"
    config.num_frames = 1
    config.photo_share = 0.75
    config.degradation = "scene"
    config.patch_size = 128
    config.flip = True
    config.rotate = True
    config.eval_patch_size = 128
    config.eval_batch_size = 8
    config.eval_repeats = 4

    config.batch_size = 8
    config.num_steps = 60_000
    config.checkpoint_every_steps = 250
    config.loss = "psnr"
    config.learning_rate = 6e-4
    config.warmup_steps = 500
    config.weight_decay = 1e-4
    config.adam_b2 = 0.99
    config.grad_clip = "global"
    config.grad_clip_norm = 100.0
    config.ema_decay = 0.999
    return config
