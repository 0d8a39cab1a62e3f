"""KAIST_NET on CIFAR-10, as published.

  python train.py --config configs/kaist_cifar.py --workdir runs/kaist_cifar
  python eval.py  --config configs/kaist_cifar.py --workdir runs/kaist_cifar --output out

What:      9 outer and 4 inner blocks, 11,590,813 parameters; every image blurred once, no other
           augmentation; 30 epochs of batches of 32, L1, Adam, each gradient clipped to norm 1.
Source:    Sim & Kim, CVPRW 2019, in the variant and with the settings of
           Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020,
           github.com/MarcelloSimonati/DeepImageDeblurring. The learning rate is not published; a
           constant 1e-4 is our choice.
Expected:  31.53 dB, SSIM 0.9012, MSE 1.77e-3 (published). Not trained by us yet.
Hardware:  a GPU.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model = "kaist_net"
    with config.unlocked():
        config.model_kwargs = ConfigDict(
            {"num_blocks": 9, "num_inner_blocks": 4, "num_channels": 32}
        )
    config.loss = "l1"
    config.batch_size = 32
    config.num_epochs = 30
    return config
