"""From files to batches of blurred and sharp patches.

`datasets` names the sources. `cifar` and `photos` are sharp images, of which `patches` takes
samples; `clips` are frames that are blurred in the data. `source` says what every source has.
`epochs` orders the samples and loads them with Grain, and `pipeline` makes the batches of a
training or an evaluation. The blurred input is made by `blur` inside the jitted step, or on the
host by `degrade` and, of clips, by `motion`.
"""
