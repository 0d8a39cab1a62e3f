"""ATROUS_NET on REDS, as published.

  python train.py --config configs/atrous_reds.py --config.data_dir=DIR --workdir runs/atrous_reds
  python eval.py  --config configs/atrous_reds.py --config.data_dir=DIR --workdir runs/atrous_reds \
    --config.eval_patch_size=0 --output out

What:      10 blocks of 256 channels, three frames in, 24,433,539 parameters; random 256x256 crops
           of three frames, brighter or darker, mirrored, turned by 90 degrees, the neighbours moved
           by up to 2 pixels; 71 epochs of batches of 4, L1, Adam, each gradient clipped to norm 1.
           Evaluated on a random 256x256 crop of each validation frame, as published, or on whole
           frames (eval_patch_size=0).
Source:    Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020,
           github.com/MarcelloSimonati/DeepImageDeblurring; REDS is of Nah et al., CVPRW 2019. The
           learning rate and the size of the change of brightness are not published; a constant
           1e-4 and 0.05 are our choice.
Data:      DIR holds train_sharp, train_blur, val_sharp and val_blur, or is a store made of them by
           `jaxdeblur prepare frames`, which reads many times as fast.
Expected:  32.42 dB, SSIM 0.9009, MSE 1.05e-3 (published). Not trained by us yet.
Hardware:  a GPU.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import atrous_cifar, reds_recipe


def get_config() -> ConfigDict:
    config = reds_recipe.apply(atrous_cifar.get_config())
    config.model_kwargs.num_blocks = 10
    config.num_epochs = 71
    return config
