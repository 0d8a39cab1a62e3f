"""CARLO_NET on CIFAR-10, as published.

  python train.py --config configs/carlo_cifar.py --workdir runs/carlo_cifar
  python eval.py  --config configs/carlo_cifar.py --workdir runs/carlo_cifar --output out

What:      128 filters, 2,663,555 parameters; every image blurred once, no other augmentation; 40
           epochs of batches of 32, MSE, Adam, each gradient clipped to norm 1.
Source:    Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020,
           github.com/MarcelloSimonati/DeepImageDeblurring. The learning rate is not published; a
           constant 1e-4 is our choice.
Expected:  29.34 dB, SSIM 0.905, MSE 2.11e-3 (published). Not trained by us yet.
Hardware:  a GPU.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model = "carlo_net"
    with config.unlocked():
        config.model_kwargs = ConfigDict({"num_filters": 128})
    config.loss = "mse"
    config.batch_size = 32
    config.num_epochs = 40
    return config
