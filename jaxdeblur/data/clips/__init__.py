"""Clips: frames that are blurred in the data, each with its neighbours and a sharp one.

`source` is what training and evaluation open. It numbers the `frames` of clips that it reads from
a folder of image files (`folders`) or from a `store` made of one, and takes samples of them
(`triplets`). `check` looks through a folder for what would spoil a training.
"""
