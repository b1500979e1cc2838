"""Bootstrap: how certain a mean over pictures is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from camcli.errors import UsageError

DRAWS, LEVEL = 2000, 0.95
AT_ONCE = 2**22  # numbers that are drawn together


def bootstrap_interval(
    values: Tensor, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Returns the mean's percentile interval over resampled pictures.  [n] -> low, high

    Efron, "Bootstrap methods: another look at the jackknife", 1979.  The same seed draws the same
    pictures, so that the intervals of several methods can be compared.  Raises UsageError for fewer
    than two values, for NaN or infinity, for a level that does not lie between 0 and 1, and for
    fewer than one draw.

    Example:
        >>> import torch
        >>> bootstrap_interval(torch.tensor([0.5, 0.5, 0.5]))
        (0.5, 0.5)
    """
    values = values.detach().double().cpu()
    if values.ndim != 1 or len(values) < 2 or not values.isfinite().all():
        raise UsageError(
            f"An interval needs two or more finite values [n], not {list(values.shape)}."
        )
    if not 0 < level < 1 or draws < 1:
        raise UsageError(
            f"A level lies between 0 and 1, and there are 1 or more draws, not {level} and {draws}."
        )
    draw = torch.Generator().manual_seed(seed)
    count = len(values)
    rows = max(1, AT_ONCE // count)
    means = torch.cat(
        [
            values[torch.randint(count, (min(rows, draws - start), count), generator=draw)].mean(1)
            for start in range(0, draws, rows)
        ]
    )
    return _find_percentiles(means, level)


def bootstrap_conclusion(
    values: Tensor, conclude: Callable[[Tensor], Tensor], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Returns the 95 % interval of a number computed from a mean.  [n ...] -> low, high

    `conclude` turns the means [d ...] of d draws into numbers [d].  The percentiles and the drawn
    pictures are those of `bootstrap_interval` with the same seed.  Raises UsageError for fewer than
    two pictures, and for NaN or infinity.
    """
    flat = values.detach().double().cpu().flatten(1)
    count = len(flat)
    if count < 2 or not flat.isfinite().all():
        raise UsageError(
            f"An interval needs two or more pictures with finite values [n ...], not {count}."
        )
    draw = torch.Generator().manual_seed(seed)
    rows, parts = max(1, AT_ONCE // count), []
    for start in range(0, draws, rows):
        drawn = torch.randint(count, (min(rows, draws - start), count), generator=draw)
        times = torch.zeros(drawn.shape, dtype=flat.dtype)
        times.scatter_add_(1, drawn, torch.ones_like(times))
        parts.append(conclude((times @ flat / count).view(-1, *values.shape[1:])))
    return _find_percentiles(torch.cat(parts), LEVEL)


def _find_percentiles(numbers: Tensor, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=numbers.dtype)
    low, high = torch.quantile(numbers, ends).tolist()
    return low, high
