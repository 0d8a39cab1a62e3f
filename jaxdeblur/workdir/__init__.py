"""What a run leaves in its folder, the workdir, and how it is read back.

`settings` is its configuration, `log` its measurements, `checkpoints` its states. Training writes
them and goes on from them; `jaxdeblur.load` takes the trained parameters. Nothing here needs the
packages that training needs.
"""
