"""Methods that weight activations by the score's gradients at the same layer."""

from collections.abc import Callable

import torch
from torch import Tensor

from camcli.methods.postprocessing import sum_channels
from camcli.methods.principal_component import project_first_component
from camcli.methods.smoothing import Noise
from camcli.registry import method

# as in grad-cam: larger than g^2 on random networks, where it decides the map
GRADCAM_PLUS_PLUS_EPSILON = 1e-6
XGRADCAM_EPSILON = 1e-7
# so that rounding does not decide the sign of a map that goes as far down as up
SIGN_TOLERANCE = 1e-6


@method("gradcam", gives="weighted activations")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM, arXiv:1610.02391 eq. 1-2.  [b c h w] -> weighted activations [b c h w]"""
    return gradients.mean((2, 3), keepdim=True) * activations


@method("gradcam++", gives="weighted activations")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++, arXiv:1710.11063.  [b c h w] -> weighted activations [b c h w]"""
    return _weight_plus_plus(activations, gradients, gradients**2, gradients**3)


def _weight_plus_plus(activations: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    mass = activations.sum((2, 3), keepdim=True)
    alpha = second / (2 * second + mass * third + GRADCAM_PLUS_PLUS_EPSILON)
    return (alpha * first.relu()).sum((2, 3), keepdim=True) * activations


@method("smoothgradcam++", gives="weighted activations")
def smooth_gradcam_plus_plus(
    inputs: Tensor,
    activations: Tensor,
    gradients_at: Callable[[Tensor], Tensor],
    *,
    samples: int = 8,
    sigma: float = 0.15,
    seed: int = 0,
) -> Tensor:
    """Smooth Grad-CAM++, arXiv:1908.01224: sigma is a share of the picture's range.  [b c h w]

    Its alpha is that of Grad-CAM++, which it is without noise (the paper prints the first
    derivative for the second above the line).  Raises UsageError for no samples or negative noise.
    """
    noise = Noise(samples, sigma, seed)
    sums = [torch.zeros_like(activations) for _ in range(3)]
    for noisy in noise.copies(inputs):
        gradients = gradients_at(noisy)
        for power, total in enumerate(sums, 1):
            total += gradients**power
    first, second, third = (total / samples for total in sums)
    return _weight_plus_plus(activations, first, second, third)


@method("xgradcam", gives="weighted activations")
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """XGrad-CAM, arXiv:2008.02312.  [b c h w] -> weighted activations [b c h w]"""
    mass = activations.sum((2, 3), keepdim=True)
    weights = (gradients * activations).sum((2, 3), keepdim=True) / (mass + XGRADCAM_EPSILON)
    return weights * activations


@method("layercam", gives="weighted activations")
def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM, TIP 2021 (10.1109/TIP.2021.3089943).  [b c h w] -> the same, weighted"""
    return gradients.relu() * activations


@method("hirescam", gives="weighted activations")
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM, arXiv:2011.08891.  [b c h w] -> weighted activations [b c h w]"""
    return gradients * activations


@method("gradcamelementwise", gives="weighted activations")
def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM (arXiv:2011.08891), each term above zero, as in grad-cam.  [b c h w] -> the same"""
    return (gradients * activations).relu()


@method("shapleycam", gives="weighted activations")
def shapleycam(activations: Tensor, gradients: Tensor, curvature: Tensor) -> Tensor:
    """ShapleyCAM, arXiv:2501.06261.  [b c h w] -> weighted activations [b c h w]"""
    return (gradients - curvature / 2).mean((2, 3), keepdim=True) * activations


@method("eigengradcam", gives="map")
def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """EigenCAM of gradient times activation, arXiv:2008.00299.  [b c h w] -> [b h w]"""
    weighted = gradients * activations
    return project_first_component(weighted, sum_channels(weighted))


@method("cam", gives="weighted activations")
def cam(activations: Tensor, class_weights: Tensor, class_bias: Tensor) -> Tensor:
    """CAM, arXiv:1512.04150.  [b c h w], [b c], [b] -> weighted activations [b c h w]

    Their sum is the class's map; its bias, where it has one, is shared among the channels.
    """
    bias = class_bias[:, None, None, None] / activations.shape[1]
    return class_weights[:, :, None, None] * activations + bias


@method("segeigencam", gives="map")
def segeigencam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Seg-Eigen-CAM, Appl. Sci. 2025 (10.3390/app15137562).  [b c h w] -> [b h w]

    Its sign is the paper's, not that of EigenCAM: the value farthest from zero is positive.
    """
    weighted = gradients.abs() * activations
    component = project_first_component(weighted, sum_channels(weighted))
    high, low = component.amax((1, 2), keepdim=True), component.amin((1, 2), keepdim=True)
    return torch.where(-low > high * (1 + SIGN_TOLERANCE), -component, component)
