"""NAFNet on GoPro, as published.

  python train.py --config configs/nafnet_gopro.py --config.data_dir=DIR --workdir runs/nafnet
  python eval.py  --config configs/nafnet_gopro.py --config.data_dir=DIR --workdir runs/nafnet \
    --output out
  python eval.py  --config configs/nafnet_gopro.py --config.data_dir=DIR \
    --checkpoint NAFNet-GoPro-width32.pth --output out

What:      width 32, 17,111,907 parameters; random squares of 256 pixels, mirrored and turned;
           200,000 steps of batches of 32, minus the PSNR, AdamW with betas 0.9 and 0.9, the rate
           from 1e-3 to 1e-7 along a cosine, gradients clipped to a common norm of 0.01. Evaluated
           on whole frames, channel attention over windows of 384 pixels. For width 64:
           --config.model=nafnet_64 --config.num_steps=400000.
Source:    Chen et al., "Simple Baselines for Image Restoration", ECCV 2022 (arXiv 2204.04676),
           github.com/megvii-research/NAFNet. Its paper has a weight decay of 1e-3, its options for
           width 32 none. GoPro is of Nah et al., CVPR 2017.
Data:      DIR holds train/GOPR0372_07_00/blur, .../sharp and so on, and test/.
Expected:  32.87 dB, SSIM 0.9606 (published; width 64 33.71 dB, 0.9668). Not trained by us.
Hardware:  8 GPUs, as published.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import default, gopro_recipe


def get_config() -> ConfigDict:
    config = gopro_recipe.apply(default.get_config())
    config.model = "nafnet"
    config.batch_size = 32
    config.num_steps = 200_000
    config.loss = "negative_psnr"
    config.learning_rate = 1e-3
    config.adam_b1 = 0.9
    config.adam_b2 = 0.9
    config.weight_decay = 1e-3
    config.grad_clip_norm = 0.01
    return config
