"""Paired test: whether a difference on the same pictures is more than noise."""

from __future__ import annotations

from collections.abc import Sequence

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
    count = len(values)
    if count <= EXACT:
        numbers = torch.arange(2**count)[:, None] >> torch.arange(count) & 1
        return float(((1 - 2 * numbers.double()) @ values).abs().ge(observed).double().mean())
    draw = torch.Generator().manual_seed(seed)
    rows, hits = max(1, AT_ONCE // count), 1
    for start in range(0, draws, rows):
        shape = (min(rows, draws - start), count)
        signs = 1 - 2 * torch.randint(2, shape, generator=draw).double()
        hits += int((signs @ values).abs().ge(observed).sum())
    return hits / (draws + 1)


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
