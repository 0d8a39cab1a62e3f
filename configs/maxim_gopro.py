"""MAXIM on GoPro, after its paper.

  python train.py --config configs/maxim_gopro.py --config.data_dir=DIR --workdir runs/maxim
  python eval.py  --config configs/maxim_gopro.py --config.data_dir=DIR --workdir runs/maxim \
    --output out
  python eval.py  --config configs/maxim_gopro.py --config.data_dir=DIR --checkpoint maxim-gopro \
    --output out

What:      three stages, 22,212,795 parameters; random squares of 256 pixels, mirrored, turned, half
           of them mixed with another one; Charbonnier's loss and a tenth of the difference of the
           Fourier transforms, of all stages and sizes; Adam, the rate from 2e-4 to 1e-7 along a
           cosine. Evaluated on whole frames, in tiles of up to 512 pixels that overlap by 64.
Source:    Tu et al., "MAXIM: Multi-Axis MLP for Image Processing", CVPR 2022 (arXiv 2201.02973),
           github.com/google-research/maxim, which has no code of the training. The batch, the
           number of steps and the clipping of gradients are our choice. GoPro is of Nah et al.,
           CVPR 2017.
Data:      DIR holds train/GOPR0372_07_00/blur, .../sharp and so on, and test/.
Expected:  32.86 dB, SSIM 0.961 (published, of whole frames padded to multiples of 64). Not trained
           by us.
Hardware:  several GPUs or TPUs.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import default, gopro_recipe


def get_config() -> ConfigDict:
    config = gopro_recipe.apply(default.get_config())
    config.model = "maxim"
    config.batch_size = 64
    config.num_steps = 600_000
    config.loss = "charbonnier_frequency"
    config.learning_rate = 2e-4
    config.grad_clip_norm = 1.0
    config.mixup = 0.5
    return config
