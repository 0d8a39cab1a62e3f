"""A course in motion blur for ATROUS_NET.

  weights=atrous-cifar
  for angle in 0 22.5 45; do
    python train.py --config configs/atrous_motion.py --config.data_dir=DIR \
      --config.camera.motion_angle=$angle --config.init_from=$weights --workdir runs/motion_$angle
    weights=runs/motion_$angle/checkpoints/600
  done

What:      photographs with blur of motion alone, 3 to 14 pixels and nearly straight; random 64x64
           patches, 600 steps of batches of 16 for each angle. Where all directions come at once,
           the network has to tell them apart before deblurring pays, and deblur before telling
           pays; it stays for thousands of steps at what serves every direction a little.
Source:    this project. The shipped `atrous-photo` has half of what it teaches
           (`atrous_photos_motion`).
Expected:  training images that gain 0.8 to 1.0 dB at the end of each angle (`psnr` above
           `blurred_psnr` in metrics.jsonl), and photographs with other blur, or none, that suffer.
Hardware:  one core of an Intel Xeon (AVX-512), nine minutes for each angle.
"""

from ml_collections import ConfigDict

from jaxdeblur.configs import atrous_photos


def get_config() -> ConfigDict:
    config = atrous_photos.get_config()
    config.camera.motion_share = 1.0
    config.camera.motion_angle = 0.0
    config.camera.shortest_motion = 3.0
    config.camera.longest_motion = 14.0
    config.camera.largest_turn = 0.02
    config.camera.clean_share = 1.0
    config.patch_size = 64
    config.batch_size = 16
    config.num_steps = 600
    config.warmup_steps = 100
    config.ema_decay = 0.99
    return config
