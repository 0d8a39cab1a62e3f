"""KAIST_NET on REDS, as published.

  python train.py --config configs/kaist_reds.py --config.data_dir=DIR --workdir runs/kaist_reds
  python eval.py  --config configs/kaist_reds.py --config.data_dir=DIR --workdir runs/kaist_reds \
    --config.eval_patch_size=0 --output out

What:      9 outer and 4 inner blocks, three frames in, 11,595,613 parameters; random 256x256 crops
           of three frames, brighter or darker, mirrored, turned by 90 degrees, the neighbours moved
           by up to 2 pixels; 55 epochs of batches of 4, L1, Adam, each gradient clipped to norm 1.
           Evaluated on a random 256x256 crop of each validation frame, as published, or on whole
           frames (eval_patch_size=0).
Source:    Sim & Kim, CVPRW 2019, in the variant and with the settings of
           Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020,
           github.com/MarcelloSimonati/DeepImageDeblurring. The learning rate and the size of the
           change of brightness are not published; a constant 1e-4 and 0.05 are our choice.
Data:      DIR holds train_sharp, train_blur, val_sharp and val_blur, or is a store made of them by
           `jaxdeblur prepare frames`, which reads many times as fast.
Expected:  28.70 dB, SSIM 0.806, MSE 2.42e-3 (published). Not trained by us yet.
Hardware:  a GPU.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import kaist_cifar, reds_recipe


def get_config() -> ConfigDict:
    config = reds_recipe.apply(kaist_cifar.get_config())
    config.num_epochs = 55
    return config
