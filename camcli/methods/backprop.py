"""Methods that show the gradient of every pixel, and a map of its size beside it."""

from torch import Tensor

from camcli.methods.gradient import gradcam
from camcli.methods.postprocessing import enlarge, sum_channels
from camcli.records import Detailed
from camcli.registry import method


@method("guidedbackprop", gives="map", details=("pixels",))
def guidedbackprop(guided_gradients: Tensor) -> Detailed:
    """Guided backpropagation, arXiv:1412.6806.  [b 3 H W] -> pixels, and their size [b H W]

    A pixel's size is that of its largest colour, as in arXiv:1312.6034.
    """
    return _measure_pixels(guided_gradients)


@method("guidedgradcam", gives="map", details=("pixels",))
def guidedgradcam(activations: Tensor, gradients: Tensor, guided_gradients: Tensor) -> Detailed:
    """Guided Grad-CAM, arXiv:1610.02391: [b 3 H W] times Grad-CAM -> pixels, and their size [b H W]

    Grad-CAM is rectified, then enlarged.
    """
    heat = sum_channels(gradcam(activations, gradients)).relu()
    height, width = guided_gradients.shape[-2:]
    return _measure_pixels(guided_gradients * enlarge(heat, (height, width))[:, None])


def _measure_pixels(pixels: Tensor) -> Detailed:
    return Detailed(pixels.abs().amax(1), {"pixels": pixels})
