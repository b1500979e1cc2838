"""Methods that weight activations by the score's gradients at the same layer."""

import torch
from torch import Tensor

from camcli.methods.compose import channel_sum, first_component
from camcli.registry import method

# as in grad-cam: larger than g^2 on random networks, where it decides the map
GRADCAM_PLUS_PLUS_EPSILON = 1e-6
XGRADCAM_EPSILON = 1e-7


@method("gradcam", gives="weighted activations")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM, arXiv:1610.02391 eq. 1-2.  [b c h w] -> weighted activations [b c h w]"""
    return gradients.mean((2, 3), keepdim=True) * activations


@method("gradcam++", gives="weighted activations")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++, arXiv:1710.11063.  [b c h w] -> weighted activations [b c h w]"""
    square, cube = gradients**2, gradients**3
    mass = activations.sum((2, 3), keepdim=True)
    alpha = square / (2 * square + mass * cube + GRADCAM_PLUS_PLUS_EPSILON)
    return (alpha * gradients.relu()).sum((2, 3), keepdim=True) * activations


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


@method("eigengradcam", gives="map")
def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """EigenCAM of gradient times activation, arXiv:2008.00299.  [b c h w] -> [b h w]"""
    weighted = gradients * activations
    return first_component(weighted, channel_sum(weighted))


@method("cam", gives="weighted activations")
def cam(activations: Tensor, class_weights: Tensor) -> Tensor:
    """CAM, arXiv:1512.04150.  [b c h w], [b c] -> weighted activations [b c h w]"""
    return torch.einsum("bc,bchw->bchw", class_weights, activations)
