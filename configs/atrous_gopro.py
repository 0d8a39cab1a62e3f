"""ATROUS_NET of REDS on GoPro, which it has not seen: how robust it is.

  python eval.py --config configs/atrous_gopro.py --config.data_dir=DIR --workdir runs/atrous_reds \
    --output out

What:      evaluation of the weights of configs/atrous_reds.py, or of any others, on whole frames of
           the test clips. --config.blur_variant=blur_gamma takes the frames averaged in linear
           light; papers use blur.
Source:    Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020,
           github.com/MarcelloSimonati/DeepImageDeblurring; GoPro is of Nah et al., CVPR 2017.
Data:      DIR holds test/GOPR0384_11_00/blur, .../sharp and so on.
Expected:  nothing is published for this network on the whole test set.
Hardware:  2 CPU cores: a minute or so a frame.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import atrous_reds


def get_config() -> ConfigDict:
    config = atrous_reds.get_config()
    config.dataset = "gopro"
    config.data_dir = "GoPro"
    config.eval_patch_size = 0
    return config
