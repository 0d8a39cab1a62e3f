"""From image files to batches of blurred and sharp patches on the devices.

A source (`cifar`, `photos`) is a sequence of sharp images, or (`clips`) of frames that are blurred
in the data, read from a folder (`clip_folders`) or a store (`frame_store`). `pipeline` turns one
into batches with Grain, for clips of the samples of `triplets`; `blur` makes the blurred input
inside the jitted step, `degrade` on the host.
"""
