"""From image files to batches of blurred and sharp patches on the devices.

A source (`cifar`, `photos`) is a sequence of sharp images; `pipeline` turns one into batches with
Grain; `blur` makes the blurred input inside the jitted step.
"""
