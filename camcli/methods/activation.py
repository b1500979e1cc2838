"""Methods that look at activations alone, and so show no class in particular."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from camcli.errors import UnknownName
from camcli.methods.principal_component import (
    align_sign,
    centre_channels,
    project_first_component,
    to_float64,
)
from camcli.registry import method

Kernel = Callable[[Tensor, float], Tensor]

# places [n c] and gamma -> how alike they are [n n], with scikit-learn's constants
KERNELS: Mapping[str, Kernel] = {
    "cosine": lambda rows, _: _normalise_rows(rows) @ _normalise_rows(rows).T,
    "linear": lambda rows, _: rows @ rows.T,
    "poly": lambda rows, gamma: (gamma * rows @ rows.T + 1) ** 3,
    "rbf": lambda rows, gamma: torch.exp(-gamma * _compute_squared_distances(rows)),
    "sigmoid": lambda rows, gamma: torch.tanh(gamma * rows @ rows.T + 1),
}
# an eigenvalue below this many roundings of the kernel's values is none
ROUNDINGS = 64


@method("eigencam", gives="map")
def eigencam(activations: Tensor) -> Tensor:
    """EigenCAM, arXiv:2008.00299, centred as PCA is.  [b c h w] -> [b h w]"""
    return project_first_component(activations, activations.norm(dim=1))


@method("kpcacam", gives="map")
def kpcacam(activations: Tensor, *, kernel: str = "sigmoid", gamma: float = 0.0) -> Tensor:
    """KPCA-CAM, arXiv:2410.00267; a gamma of 0 is one over the channels.  [b c h w] -> [b h w]

    The kernel is cosine, linear, poly, rbf or sigmoid, and its sign is fixed as EigenCAM's is.
    Raises UnknownName for another kernel.
    """
    if kernel not in KERNELS:
        raise UnknownName("kernel of kpcacam", kernel, KERNELS, f"All: {', '.join(KERNELS)}.")
    b, c, h, w = activations.shape
    places, finite = centre_channels(activations)
    # one picture at a time: a kernel holds every pair of places
    components = [_project_kernel(KERNELS[kernel](rows, gamma or 1 / c)) for rows in places]
    projection = torch.where(finite, torch.stack(components), torch.nan).reshape(b, h, w)
    return align_sign(activations.norm(dim=1), projection).float()


def _project_kernel(kernel: Tensor) -> Tensor:
    """Projects on the first component of a kernel that is centred here.  [n n] -> [n]"""
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    values, vectors = torch.linalg.eigh((centred + centred.T) / 2)
    rounding = ROUNDINGS * len(kernel) * torch.finfo(kernel.dtype).eps * kernel.abs().max()
    # where all places are alike there is no component, and rounding must not make up one
    strongest = torch.where(values[-1] > rounding, values[-1], 0.0)
    projection: Tensor = vectors[:, -1] * strongest.sqrt()
    return projection


def _normalise_rows(rows: Tensor) -> Tensor:
    return functional.normalize(rows, dim=1)


def _compute_squared_distances(rows: Tensor) -> Tensor:
    squares: Tensor = (rows**2).sum(1)
    return (squares[:, None] + squares - 2 * rows @ rows.T).clamp(min=0)


@method("fem", gives="map")
def fem(activations: Tensor, *, k: float = 2.0) -> Tensor:
    """FEM, IPTA 2020 (10.1109/IPTA50016.2020.9286629, hal-02963298).  [b c h w] -> [b h w]

    Channels are 1 where they exceed their mean by more than k standard deviations, else 0, and
    their means weight them (grad-cam weights the activations by the shares of ones instead).
    """
    values = to_float64(activations)
    mean = values.mean((2, 3), keepdim=True)
    above = values > mean + k * values.std((2, 3), keepdim=True, correction=0)
    return (mean * above).sum(1).float()


@method("randomcam", gives="weighted activations")
def randomcam(activations: Tensor, *, seed: int = 0) -> Tensor:
    """Weights channels by draws from -1..1: the baseline.  [b c h w] -> [b c h w]"""
    draw = torch.Generator().manual_seed(seed)
    # one draw for all pictures, so that a map does not depend on its neighbours in the batch
    weights = torch.rand(activations.shape[1], generator=draw) * 2 - 1
    return weights.to(activations)[:, None, None] * activations
