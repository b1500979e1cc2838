"""Paired test: whether a difference of two methods on the same pictures is more than noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from camcli.errors import UsageError

DRAWS = 10_000
EXACT = 13  # up to so many pictures all signs are tried
AT_ONCE = 2**22  # numbers that are drawn together
ROUNDING = 1e-9  # sums that differ by less than this share of the largest one are equal


def permute_signs(differences: Tensor, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Returns the two-sided p value of a mean difference: signs are permuted at random.  [n]

    The permutation test of paired values (Fisher, "The design of experiments", 1935): if two
    methods are equally good, each picture's difference is as likely to have the other sign.  p is
    the share of signs with a mean at least as large.  Up to 13 pictures all 2^n signs are tried,
    for more so many `draws`, to which the observed signs are added.  Raises UsageError for no
    values, and for NaN or infinity.

    Example:
        >>> import torch
        >>> permute_signs(torch.tensor([1.0, 2.0, 3.0]))
        0.25
    """
    values = differences.detach().double().cpu()
    if values.ndim != 1 or not len(values) or not values.isfinite().all():
        raise UsageError(
            f"Differences are one or more finite numbers [n], not {list(values.shape)}."
        )
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
    """Returns the two-sided p value of a difference: pictures' values are swapped at random.

    Like `permute_signs`, for a number that is computed from a mean over pictures.  `one` and
    `other` are [n ...], and `conclude` turns means [d ...] into numbers [d].  Raises UsageError for
    no pictures, and for two different shapes.
    """
    if one.shape != other.shape or not len(one):
        raise UsageError(
            f"Both sides have the same shape [n ...], not {list(one.shape)} and "
            f"{list(other.shape)}."
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
    """Yields all signs of a few pictures, or random signs of many, some rows at a time.  [r n]"""
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
    # the observed signs are added to the random ones
    return hits / 2**count if count <= EXACT else (hits + 1) / (draws + 1)


def smallest_p(count: int) -> float:
    """Returns the smallest p that `permute_signs` can give for a number of pictures."""
    return 2.0 ** (1 - count) if count <= EXACT else 1 / (DRAWS + 1)


def adjust_holm(values: Sequence[float]) -> list[float]:
    """Corrects p values for the number of comparisons (Holm, 1979); their order stays.

    The smallest p is multiplied by their number, the next one by one less, and so on.  None becomes
    smaller than the one before it, or larger than 1.

    >>> adjust_holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted, most = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, values[place] * (len(values) - rank)))
        adjusted[place] = most
    return adjusted
