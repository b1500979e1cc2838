"""Deep feature factorization: activations as a few concepts, each with a map of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.methods.compose import precise

STEPS = 1000
# when the error fell by less than this share of itself in CHECK_EVERY steps, it stays
SMALLEST_GAIN = 1e-5
CHECK_EVERY = 20


def factorised(activations: Tensor, concepts: int = 5) -> tuple[Tensor, Tensor]:
    """Deep feature factorization, arXiv:1806.10206: what the places of all pictures are made of.

    [b c h w] -> concepts of length 1 [k c], the strongest first, and their strengths [b k h w].
    Negative activations count as none (grad-cam shifts each channel by its minimum instead).
    Raises UsageError for more concepts than there are channels or places.
    """
    b, c, h, w = activations.shape
    if not 1 <= concepts <= min(c, b * h * w):
        raise UsageError(
            f"{concepts} concepts cannot be told apart in {c} channels at {b * h * w} places:"
            f" choose 1 to {min(c, b * h * w)}."
        )
    places = precise(activations).nan_to_num(0, 0, 0).relu().permute(0, 2, 3, 1).reshape(-1, c)
    strengths, parts = _descended(places, *_first_guess(places, concepts))
    length = parts.norm(dim=1)
    parts = parts / length.clamp(min=torch.finfo(parts.dtype).tiny)[:, None]
    strengths = strengths * length
    order = strengths.norm(dim=0).argsort(descending=True, stable=True)
    maps = strengths[:, order].reshape(b, h, w, concepts).permute(0, 3, 1, 2)
    return parts[order].float(), maps.float()


def _first_guess(places: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """NNDSVDa (Boutsidis and Gallopoulos 2008): singular vectors' stronger halves, draws nothing.

    [n c] -> [n k], [k c]
    """
    left, values, right = torch.linalg.svd(places, full_matrices=False)
    left, values, right = left[:, :k].T, values[:k], right[:k]
    halves = [(sign * left).relu() for sign in (1, -1)], [(sign * right).relu() for sign in (1, -1)]
    lengths = [[half.norm(dim=1) for half in side] for side in halves]
    weights = [a * b for a, b in zip(*lengths, strict=True)]
    positive = weights[0] >= weights[1]

    def chosen(side: int) -> Tensor:
        half = torch.where(positive[:, None], halves[side][0], halves[side][1])
        length = torch.where(positive, lengths[side][0], lengths[side][1])
        scale = (values * torch.maximum(*weights)).sqrt()
        guess: Tensor = half * (scale / length.clamp(min=1e-30))[:, None]
        return guess

    # the updates multiply, so that a zero would stay one
    left, right = (torch.where(guess > 0, guess, places.mean()) for guess in map(chosen, (0, 1)))
    return left.T, right


def _descended(places: Tensor, strengths: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """Multiplicative updates (Lee and Seung 2000) until the squared error stays.

    [n c], [n k], [k c] -> [n k], [k c]
    """
    tiny = torch.finfo(places.dtype).tiny
    total, before = (places**2).sum(), torch.inf
    for step in range(1, STEPS + 1):
        parts = parts * (strengths.T @ places) / (strengths.T @ strengths @ parts + tiny)
        along = places @ parts.T
        strengths = strengths * along / (strengths @ (parts @ parts.T) + tiny)
        if step % CHECK_EVERY == 0:
            error = float(((places - strengths @ parts) ** 2).sum())
            if before - error <= SMALLEST_GAIN * error or error <= 1e-12 * total:
                break
            before = error
    return strengths, parts
