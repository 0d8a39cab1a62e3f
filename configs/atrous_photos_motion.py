"""The last stage of the shipped `atrous-photo`: photographs again, with more blur of motion.

  python train.py --config configs/atrous_photos.py --config.data_dir=DIR --workdir runs/photos
  # ... and the course as configs/atrous_motion.py has it
  python tools/combine.py runs/combined.safetensors --base atrous-cifar \
    --add runs/photos/checkpoints/9000 1 --add runs/motion_45/checkpoints/600 0.5
  python train.py --config configs/atrous_photos_motion.py --config.data_dir=DIR \
    --workdir runs/photos_motion

What:      as `atrous_photos`, but half of the patches have blur of motion, of 1.5 to 14 pixels and
           less curved, as pictures have that are shrunk (`jaxdeblur.restoring.scales`); 4,800
           steps. Starts from weights that know all that `atrous_photos` taught and half of what the
           course of `atrous_motion` did: after the one alone, motion blur is hardly noticed; after
           the other, the rest is forgotten, and what was learned of motion fades while it comes
           back.
Source:    this project; the weights between are those of Ilharco et al., "Editing models with task
           arithmetic", ICLR 2023.
Expected:  docs/results.md has what `atrous-photo` reaches.
Hardware:  2 CPU cores (Intel Xeon, AVX-512), an hour.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import atrous_photos


def get_config() -> ConfigDict:
    config = atrous_photos.get_config()
    config.init_from = "runs/combined.safetensors"
    config.camera.motion_share = 0.5
    config.camera.longest_motion = 14.0
    config.camera.largest_turn = 0.05
    config.camera.largest_enlargement = 1.3
    config.num_steps = 4800
    config.warmup_steps = 200
    return config
