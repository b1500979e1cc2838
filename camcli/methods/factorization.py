"""Deep feature factorization: activations as a few concepts, each with a map of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.methods.principal_component import to_float64
from camcli.records import Detailed
from camcli.registry import method

# what builds the altered rows of a slice; a picture's logits [n classes] with n rows altered so
RecomputeLogits = Callable[[Callable[[slice], Tensor], int, int], Tensor]

STEPS = 1000
# when the error fell by less than this share of itself in CHECK_EVERY steps, it stays
SMALLEST_GAIN = 1e-8
CHECK_EVERY = 20
SMALLEST_LENGTH = 1e-12


@method("dff", gives="map", details=("concepts", "concept_logits"))
def dff(activations: Tensor, recompute_logits: RecomputeLogits, *, concepts: int = 5) -> Detailed:
    """Deep feature factorization, arXiv:1806.10206.  [b c h w] -> the strengths' sum [b h w]

    Each picture has concepts of its own.  A concept's logits are the picture's when the layer puts
    out that concept alone, at the length that the activations have: a small one by itself would
    leave the layer nearly empty, where all speak for what the head's biases say.  What goes round
    the layer (a residual path, a class token) stays in them.  Negative activations count as none,
    so that where there are some (behind LayerNorm, GELU) concepts are made of the others only.
    """
    each, logits = [], []
    for owner, maps in enumerate(activations):
        parts, (strengths,) = factorise(maps[None], concepts)
        # an overflow must not pass for a place without any concept
        each.append(strengths if maps.isfinite().all() else torch.full_like(strengths, torch.nan))
        length = strengths.flatten(1).norm(dim=1).clamp(min=SMALLEST_LENGTH)
        alone = strengths * (maps.relu().norm() / length)[:, None, None]
        logits.append(recompute_logits(partial(_rebuild, parts, alone), concepts, owner))
    stack = torch.stack(each)
    return Detailed(stack.sum(1), {"concepts": stack, "concept_logits": torch.stack(logits)})


def _rebuild(parts: Tensor, strengths: Tensor, rows: slice) -> Tensor:
    """Rebuilds a layer's output from one concept in each row.  [k c], [k h w] -> [n c h w]"""
    return parts[rows, :, None, None] * strengths[rows, None]


def factorise(activations: Tensor, concepts: int = 5) -> tuple[Tensor, Tensor]:
    """Deep feature factorization, arXiv:1806.10206: what the places of all pictures are made of.

    [b c h w] -> concepts of length 1 [k c], the strongest first, and their strengths [b k h w].
    Negative activations count as none (grad-cam shifts each channel by its minimum instead).
    Raises UsageError for more concepts than there are channels or places.
    """
    b, c, h, w = activations.shape
    if not 1 <= concepts <= min(c, b * h * w):
        raise UsageError(
            f"Option concepts is 1 to {min(c, b * h * w)} in {c} channels at {b * h * w} places,"
            f" not {concepts}."
        )
    places = to_float64(activations).nan_to_num(0, 0, 0).relu().permute(0, 2, 3, 1).reshape(-1, c)
    strengths, parts = _descend(places, *_initialise(places, concepts))
    length = parts.norm(dim=1)
    parts = parts / length.clamp(min=torch.finfo(parts.dtype).tiny)[:, None]
    strengths = strengths * length
    order = strengths.norm(dim=0).argsort(descending=True, stable=True)
    maps = strengths[:, order].reshape(b, h, w, concepts).permute(0, 3, 1, 2)
    return parts[order].float(), maps.float()


def _initialise(places: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """NNDSVD (Boutsidis and Gallopoulos 2008): singular vectors' stronger halves, draws nothing.

    [n c] -> [n k], [k c]
    """
    left, values, right = torch.linalg.svd(places, full_matrices=False)
    left, values, right = left[:, :k].T, values[:k], right[:k]
    halves = [(sign * left).relu() for sign in (1, -1)], [(sign * right).relu() for sign in (1, -1)]
    lengths = [[half.norm(dim=1) for half in side] for side in halves]
    weights = [a * b for a, b in zip(*lengths, strict=True)]
    positive = weights[0] >= weights[1]

    def choose_halves(side: int) -> Tensor:
        half = torch.where(positive[:, None], halves[side][0], halves[side][1])
        length = torch.where(positive, lengths[side][0], lengths[side][1])
        scale = (values * torch.maximum(*weights)).sqrt()
        guess: Tensor = half * (scale / length.clamp(min=1e-30))[:, None]
        return guess

    return choose_halves(0).T, choose_halves(1)


def _descend(places: Tensor, strengths: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """Improves one concept after the other (HALS, Cichocki and Phan 2009) until the error stays.

    [n c], [n k], [k c] -> [n k], [k c].  Multiplicative updates (Lee and Seung 2000) take longer
    for the same error.
    """
    total, before = (places**2).sum(), torch.inf
    for step in range(1, STEPS + 1):
        strengths = _improve_factor(strengths, parts.T, places)
        parts = _improve_factor(parts.T, strengths, places.T).T
        if step % CHECK_EVERY == 0:
            error = float(((places - strengths @ parts) ** 2).sum())
            if before - error <= SMALLEST_GAIN * error or error <= 1e-12 * total:
                break
            before = error
    return strengths, parts


def _improve_factor(factor: Tensor, other: Tensor, product: Tensor) -> Tensor:
    """Finds each column's best values from 0, the other columns given.

    [m k], [n k], [m n] -> [m k]
    """
    along, alike = product @ other, other.T @ other
    lengths = alike.diagonal().clamp(min=torch.finfo(factor.dtype).tiny)
    factor = factor.clone()
    for k in range(factor.shape[1]):
        step = (along[:, k] - factor @ alike[:, k]) / lengths[k]
        factor[:, k] = (factor[:, k] + step).relu()
    return factor
