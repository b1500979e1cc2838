"""Methods that look at activations alone, and so show no class in particular."""

import torch
from torch import Tensor

from camcli.methods.compose import first_component
from camcli.registry import method


@method("eigencam", gives="map")
def eigencam(activations: Tensor) -> Tensor:
    """EigenCAM, arXiv:2008.00299, centred as PCA is.  [b c h w] -> [b h w]"""
    return first_component(activations, activations.norm(dim=1))


@method("randomcam", gives="weighted activations")
def randomcam(activations: Tensor, *, seed: int = 0) -> Tensor:
    """Weights channels by draws from -1..1: the baseline.  [b c h w] -> [b c h w]"""
    draw = torch.Generator().manual_seed(seed)
    # one draw for all pictures, so that a map does not depend on its neighbours in the batch
    weights = torch.rand(activations.shape[1], generator=draw) * 2 - 1
    return weights.to(activations)[:, None, None] * activations
