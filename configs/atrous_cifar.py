"""ATROUS_NET on CIFAR-10, as published.

  python train.py --config configs/atrous_cifar.py --workdir runs/atrous_cifar
  python eval.py  --config configs/atrous_cifar.py --workdir runs/atrous_cifar --output out

What:      the official network, 256 channels, 5 blocks, 12,571,011 parameters; every image blurred
           once, no other augmentation; 29 epochs of batches of 32, L1, Adam, each gradient
           clipped to norm 1.
Source:    Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020,
           github.com/MarcelloSimonati/DeepImageDeblurring. The learning rate is not published; a
           constant 1e-4 is our choice.
Expected:  33.61 dB, SSIM 0.9237, MSE 1.50e-3 (published). Not trained by us yet.
Hardware:  a GPU; one step on CPU takes 16 times the arithmetic of atrous_cifar_small.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model = "atrous_net"
    with config.unlocked():
        config.model_kwargs = ConfigDict({"num_channels": 256, "num_blocks": 5})
    config.loss = "l1"
    config.batch_size = 32
    config.num_epochs = 29
    return config
