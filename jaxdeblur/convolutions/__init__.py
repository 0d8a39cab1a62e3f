"""How convolutions are computed: on a CPU by this package, elsewhere by the compiler.

Why it exists. XLA compiles `lax.conv_general_dilated` well for GPUs and TPUs. On a CPU its
convolutions stay far behind its own matrix products: with few channels, with strides, and most of
all in gradients. The gradient of a transposed convolution's kernel takes 60 to 300 times what it
could. A network that is trained, or restores photographs, on a CPU spends nearly all of its time
there. So this package writes every convolution as matrix products, and XLA compiles those. A
training step of the published networks then takes 0.43 to 0.75 of PyTorch's time; docs/speed.md has
the measurements.

What it gives. Five functions of arrays, which the layers in `jaxdeblur.models.layers` call:

  convolve             with stride or dilation, 'SAME' or 'VALID'
  transposed_convolve  its linear transpose
  depthwise_convolve   each channel by itself (NAFNet)
  pointwise_convolve   1x1, a matrix product (NAFNet, MAXIM)
  adaptive_convolve    with a kernel of its own for every pixel (KAIST_NET)

They know no networks and no parameters, and mean the same on every platform, to rounding.

What it chooses between. `functions` builds two formulations into each program; the compiler drops
the one that is not for its platform:

  compiled   XLA's own convolution; with plain convolutions as gradients of a transposed one
  cpu        matrix products, in the form that costs least for the layer's size:
    winograd   3x3 to 5x5 kernels with a quarter of the products (Winograd's minimal filtering)
    columns    copies of the image, shifted, and one product; for few channels and 1x1 kernels
    compiled   for wide images with enough channels, where XLA's is the quickest after all

A stride becomes channels (`phases`), so that both forms know strides of 1 alone. Large images are
taken in bands that the cache holds. Each form counts what it would cost before it is chosen
(`cost`): the choice depends on sizes, the number of devices and the type, and never on a
measurement at run time. Half precision gets `columns`, since Winograd's sums would lose digits.

With several devices on a CPU (`JAX_NUM_CPU_DEVICES=2`), a single image can be divided: each device
takes a share of the columns and asks its neighbours for the few beside it (`shares`).

How exact it is. Outputs and gradients agree with the compiler's to 1e-4 of the largest value in
float32; the tests compare them layer by layer.

How to switch it off. Set the environment variable `JAXDEBLUR_CONVOLUTIONS=compiler`, before the
first convolution is traced: then a CPU gets the compiler's convolutions too, for debugging and for
comparing.

  JAXDEBLUR_CONVOLUTIONS=compiler jaxdeblur deblur photo.jpg
"""

from jaxdeblur.convolutions.functions import (
    SWITCH,
    Padding,
    adaptive_convolve,
    convolve,
    depthwise_convolve,
    transposed_convolve,
)
from jaxdeblur.convolutions.pointwise import pointwise_convolve

__all__ = [
    "SWITCH",
    "Padding",
    "adaptive_convolve",
    "convolve",
    "depthwise_convolve",
    "pointwise_convolve",
    "transposed_convolve",
]
