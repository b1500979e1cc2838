"""The first principal component of channels, for methods and for eigen-smooth."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.methods.postprocessing import sum_channels

# (1 - 1e-6) ** 2 ** 24 is 5e-8, the rounding of the float32 that maps come in
SQUARINGS = 24


def project_first_component(maps: Tensor, strength: Tensor) -> Tensor:
    """Projects each place on the first principal component, arXiv:2008.00299.

    [b c h w], strength [b h w] -> [b h w].  The channels are centred (PCA; the paper does not), and
    the sign, which PCA leaves open, is the one in which the projection grows with `strength`.
    """
    b, c, h, w = maps.shape
    rows, finite = centre_channels(maps)
    if h * w <= c:
        values, vectors = find_largest_eigenpair(rows @ rows.mT)
        projection = vectors * values.clamp(min=0).sqrt()
    else:
        projection = (rows @ find_largest_eigenpair(rows.mT @ rows)[1][..., None]).squeeze(-1)
    projection = torch.where(finite, projection, torch.nan)
    return align_sign(strength, projection.reshape(b, h, w)).float()


def find_largest_eigenpair(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the largest eigenvalue and its vector, of length 1.  [b n n] -> [b 1], [b n]"""
    if gram.is_cpu:
        values, vectors = torch.linalg.eigh(gram)
        return values[:, -1:], vectors[..., -1]
    # a GPU's eigh takes one matrix after the other
    return raise_to_power(gram)


def raise_to_power(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the same by repeated squaring, if the two largest differ by a millionth.

    [b n n], no eigenvalue below zero -> [b 1], [b n]; zeros where there is none above it either.
    """
    tiny, power = torch.finfo(gram.dtype).tiny, gram
    for _ in range(SQUARINGS):
        trace = power.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        power = power / trace.clamp(min=tiny)
        power = power @ power
    # all columns are the vector now, and the longest one has the least rounding
    column = power.diagonal(dim1=1, dim2=2).argmax(1)[:, None, None]
    vector = power.take_along_dim(column, 2)
    vector = vector / vector.norm(dim=1, keepdim=True).clamp(min=tiny)
    value = vector.mT @ gram @ vector
    return value.squeeze(2), vector.squeeze(2)


def centre_channels(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Lists each place's channels less their means, zeros for a picture that is not finite.

    [b c h w] -> [b h*w c], and which pictures are finite [b 1]
    """
    # float64: a Gram matrix squares the condition number
    rows = to_float64(maps).flatten(2).transpose(1, 2)
    finite = rows.isfinite().all(2).all(1, keepdim=True)
    # eigh raises on NaN; one bad picture must not stop its neighbours
    return torch.where(finite[..., None], rows - rows.mean(1, keepdim=True), 0.0), finite


def to_float64(tensor: Tensor) -> Tensor:
    """Returns the tensor in float64, or in float32 on MPS, which has nothing wider."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def align_sign(strength: Tensor, maps: Tensor) -> Tensor:
    """Turns the maps that fall where the strength grows.  [b h w], [b h w] -> [b h w]"""
    along = (maps * strength.to(maps)).sum((1, 2), keepdim=True)
    return torch.where(along < 0, -maps, maps)


def eigen_smooth(weighted: Tensor) -> Tensor:
    """Reduces weighted activations to their first principal component.  [b c h w] -> [b h w]"""
    return project_first_component(weighted, sum_channels(weighted))
