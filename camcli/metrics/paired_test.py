"""Paired test: whether a difference on the same pictures is more than noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from camcli.errors import UsageError

DRAWS = 10_000
EXACT = 13  # pictures up to which all signs are tried
AT_ONCE = 2**22  # numbers that are drawn together
ROUNDING = 1e-9  # sums that differ by less than this share of the largest one are equal


def permute_signs(differences: Tensor, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Returns how likely a mean difference at least this large is if its signs are chance.  [n]

    The two-sided permutation test of paired values (Fisher, "The design of experiments", 1935): if
    two methods are equally good, each picture's difference is as likely to have the other sign.
    All 2^n signs are tried where they are few, else so many draws, of which the observed one is
    one.  Raises UsageError for no values, or what is no number.

    Example:
        >>> import torch
        >>> permute_signs(torch.tensor([1.0, 2.0, 3.0]))
        0.25
    """
    values = differences.detach().double().cpu()
    if values.ndim != 1 or not len(values) or not values.isfinite().all():
        raise UsageError(f"Differences are finite numbers [n], not {list(values.shape)}.")
    scale = float(values.abs().sum())
    observed = abs(float(values.sum())) - ROUNDING * scale
    hits = (
        int((s @ values).abs().ge(observed).sum()) for s in _draw_signs(len(values), draws, seed)
    )
    return _count_share(sum(hits), len(values), draws)


def permute_pairs(
    one: Tensor,
    other: Tensor,
    conclude: Callable[[Tensor], Tensor],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """Returns how likely a difference this large is if who had which picture's values is chance.

    As `permute_signs`, for what is concluded from the mean over the pictures: one and other
    [n ...], and `conclude` makes numbers [d] of means [d ...].  Raises UsageError for no pictures.
    """
    if one.shape != other.shape or not len(one):
        raise UsageError(
            f"Pairs have the same shape [n ...], not {list(one.shape)} and {list(other.shape)}."
        )
    shape = one.shape[1:]
    first, second = (values.detach().double().cpu().flatten(1) for values in (one, other))
    middle, apart = ((first + second) / 2).mean(0), (first - second) / 2

    def compute_difference(signs: Tensor) -> Tensor:
        swapped = signs @ apart / len(one)
        return conclude((middle + swapped).view(-1, *shape)) - conclude(
            (middle - swapped).view(-1, *shape)
        )

    whole = torch.ones(1, len(one), dtype=torch.float64)
    observed = float(compute_difference(whole).abs()) - ROUNDING
    hits = (
        int(compute_difference(signs).abs().ge(observed).sum())
        for signs in _draw_signs(len(one), draws, seed)
    )
    return _count_share(sum(hits), len(one), draws)


def _draw_signs(count: int, draws: int, seed: int) -> Iterator[Tensor]:
    """Yields all signs of a few pictures, or so many draws of them, some rows at a time.  [r n]"""
    if count <= EXACT:
        numbers = torch.arange(2**count)[:, None] >> torch.arange(count) & 1
        yield 1 - 2 * numbers.double()
        return
    draw = torch.Generator().manual_seed(seed)
    rows = max(1, AT_ONCE // count)
    for start in range(0, draws, rows):
        shape = (min(rows, draws - start), count)
        yield 1 - 2 * torch.randint(2, shape, generator=draw).double()


def _count_share(hits: int, count: int, draws: int) -> float:
    # of draws, the observed signs are one more
    return hits / 2**count if count <= EXACT else (hits + 1) / (draws + 1)


def smallest_p(count: int) -> float:
    """Returns the least that `permute_signs` can give for a number of pictures."""
    return 2.0 ** (1 - count) if count <= EXACT else 1 / (DRAWS + 1)


def adjust_holm(values: Sequence[float]) -> list[float]:
    """Corrects p values for their number, in their order (Holm, 1979).

    The least is multiplied by their number, the next by one less, and so on; none is smaller than
    one before it, or above 1.

    >>> adjust_holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted, most = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, values[place] * (len(values) - rank)))
        adjusted[place] = most
    return adjusted
