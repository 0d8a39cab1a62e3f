"""Every key of a configuration, with its meaning and unit.

The other files start from this one and override what they need. On the command line any key can
be set as `--config.batch_size=64`, nested ones as `--config.model_kwargs.num_blocks=10`.
"""

import dataclasses

from ml_collections import ConfigDict

from jaxdeblur.data.degrade import Camera
from jaxdeblur.data.scenes import Scene


def get_config() -> ConfigDict:
    config = ConfigDict()

    # The network: a name of `jaxdeblur models`, and fields of its class to override.
    config.model = "atrous_net"
    config.model_kwargs = ConfigDict()
    config.dtype = "float32"  # of the arithmetic: float32 | bfloat16; parameters stay float32

    # Start from trained parameters: what jaxdeblur.load takes, of the same network; "": from none.
    config.init_from = ""

    # Data: cifar10 (a TFDS folder), photos (a folder of photographs), skimage (those that
    # scikit-image ships; data_dir is not read), or clips of frames, blurred and sharp: reds, gopro
    # or one's own, clips (data_dir is a folder, or a store of `jaxdeblur prepare frames`).
    config.dataset = "cifar10"
    config.data_dir = "~/tensorflow_datasets"
    config.patch_size = 32  # pixels, the side of the square patches trained on
    # Pixels, the side of the patch evaluated: an image's central one, a frame's random one. For
    # whole frames 0.
    config.eval_patch_size = 32

    # Blur and augmentation. The published recipe blurs each image once and changes nothing else.
    # Evaluation is on Gaussian blur alone.
    # Of training: gaussian | camera (data/degrade.py) | scene (data/scenes.py).
    config.degradation = "gaussian"
    config.camera = ConfigDict(dataclasses.asdict(Camera()))  # explained there
    config.scene = ConfigDict(dataclasses.asdict(Scene()))
    config.min_sigma = 0.0  # pixels; sigma is uniform in (min_sigma, max_sigma)
    config.max_sigma = 3.0  # pixels
    config.fresh_sigma = False  # draw sigma anew each time an image is seen (camera: always)
    config.flip = False  # mirror left-right, with probability 0.5
    config.rotate = False  # turn by 0, 90, 180 or 270 degrees; frames by 90, with probability 0.5

    # Clips, whose blur is in the data.
    config.num_frames = 3  # that a network sees: 3 (previous, current, next) | 1 (current)
    config.blur_variant = "blur"  # the frames to restore, such as blur_jpeg or blur_gamma
    config.brightness = 0.0  # largest change of brightness, of values in [0, 1]
    config.frame_shift = 0  # pixels; most that the neighbours are moved in opposite directions
    # A share of the training samples may be photographs instead: for three frames a camera moves
    # past them (data/motion.py), for one they are blurred as `degradation` says.
    # photo_dir: their folder; "": clips alone.
    config.photo_dir = ""
    config.photo_share = 0.5
    config.camera_response = ""  # .npy file, as REDS publishes its inverse response; "": sRGB

    config.mixup = 0.0  # probability that a training pair is mixed with another of its batch

    # Optimisation: Adam, with decay of weights AdamW.
    config.batch_size = 32  # over all devices
    config.grad_accum_steps = 1  # parts of a batch, one after the other: less memory
    config.shard_state = False  # divide parameters and optimizer among devices, for large networks
    config.num_epochs = 30  # passes over the training split ...
    config.num_steps = 0  # ... unless the length is given in steps
    # l1 | mse | charbonnier | charbonnier_frequency | psnr | negative_psnr | ssim_l1
    config.loss = "l1"
    config.learning_rate = 1e-4
    config.schedule = "constant"  # constant | cosine (to the final rate), after the warm-up
    config.final_learning_rate = 0.0
    config.warmup_steps = 0  # steps of linear warm-up from 0
    config.adam_b1 = 0.9  # decay of Adam's average of gradients
    config.adam_b2 = 0.999  # ... of squared gradients
    config.weight_decay = 0.0  # share of the learning rate by which parameters shrink each step
    config.grad_clip_norm = 1.0  # 0 turns clipping off
    config.grad_clip = "each"  # each (parameter's norm by itself, as Keras) | global
    config.ema_decay = 0.0  # of the moving average of the parameters that is evaluated; 0: none
    config.seed = 0  # of initialisation, order, patches and blur

    # How often, in steps.
    config.log_every_steps = 50
    config.eval_every_steps = 1000
    config.checkpoint_every_steps = 500

    # Keep compiled programs in the user's cache folder (train.py and eval.py; see startup.py).
    config.compilation_cache = True

    # Evaluation.
    config.effort = 0  # of a network in stages: how many are computed; 0: all
    config.tile = "auto"  # of whole frames: auto | off | pixels of a tile's side
    config.eval_batch_size = 100  # over all devices
    config.eval_repeats = 1  # R: each image R times, sigma from the r-th of R parts; 1: published

    return config.lock()
