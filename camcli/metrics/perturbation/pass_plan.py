"""Plans of passes: the altered pictures whose scores a metric needs, made when they are needed.

The plans of several metrics and maps of one picture are carried out together.  They share batches
and the pass of the unaltered picture, and only one batch of altered pictures exists at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from camcli.errors import UsageError

# returns the explained number of altered images: [n c H W] -> [n]
Score = Callable[[Tensor], Tensor]
# makes the altered images of a slice of the plan: -> [n c H W]
Build = Callable[[slice], Tensor]
# makes a value for each map from the scores of the picture [] and of its altered ones [n]: -> [b]
Conclude = Callable[[Tensor, Tensor], Tensor]

BATCH_SIZE = 32


@dataclass(frozen=True)
class Curve:
    """Each map's scores [b p] over the shares of altered pixels [p], 0 to 1."""

    shares: tuple[float, ...]
    scores: Tensor


# makes curves from the same scores as `Conclude`, by name; a single curve is named ""
Trace = Callable[[Tensor, Tensor], Mapping[str, Curve]]


@dataclass(frozen=True)
class PassPlan:
    """The number of altered pictures, what makes them, and what makes a value of their scores.

    `trace` makes curves of the scores, for metrics that are areas under a curve.
    """

    count: int
    build: Build
    conclude: Conclude
    trace: Trace | None = None

    def carry_out(self, image: Tensor, score: Score, batch_size: int = BATCH_SIZE) -> Tensor:
        """Scores the picture and its altered ones, and returns a value for each map [b]."""
        return carry_out({"": self}, image, score, batch_size)[""]


def carry_out(
    plans: Mapping[str, PassPlan], image: Tensor, score: Score, batch_size: int = BATCH_SIZE
) -> dict[str, Tensor]:
    """Carries out the plans of one picture in common batches; returns {plan's name: values [b]}.

    All plans alter `image` [c H W]; `score` returns the explained number of altered images,
    [n c H W] -> [n]; `batch_size` is 32 by default.  Raises UsageError for a batch size below 1,
    and for scores of another shape, NaN or infinity.

    Example:
        >>> import torch
        >>> from camcli.metrics import deletion, insertion
        >>> maps, image = torch.rand(2, 8, 8), torch.randn(3, 8, 8)
        >>> plans = {
        ...     "insertion": insertion.plan_insertion(maps, image, steps=4),
        ...     "deletion": deletion.plan_deletion(maps, image, steps=4),
        ... }
        >>> values = carry_out(plans, image, lambda images: images.mean((1, 2, 3)))
        >>> values["deletion"].shape
        torch.Size([2])
    """
    whole, scores = score_altered(plans, image, score, batch_size)
    return {name: plan.conclude(whole, scores[name]) for name, plan in plans.items()}


def score_altered(
    plans: Mapping[str, PassPlan], image: Tensor, score: Score, batch_size: int = BATCH_SIZE
) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores the picture [] and each plan's altered pictures {name: [n]}, in common batches.

    Raises UsageError as `carry_out` does.
    """
    if batch_size < 1:
        raise UsageError(f"Option batch_size is 1 or more, not {batch_size}.")
    with torch.no_grad():
        scores = torch.cat(
            [_compute_scores(score, b) for b in _group_batches(plans, image, batch_size)]
        )
    parts = torch.split(scores[1:], [plan.count for plan in plans.values()])
    return scores[0], dict(zip(plans, parts, strict=True))


def _group_batches(
    plans: Mapping[str, PassPlan], image: Tensor, batch_size: int
) -> Iterator[Tensor]:
    """Yields the picture and all altered ones, batch by batch.  [n c H W]"""
    ends = list(accumulate((plan.count for plan in plans.values()), initial=1))
    starts = dict(zip(plans, ends, strict=False))
    for first in range(0, ends[-1], batch_size):
        last = min(first + batch_size, ends[-1])
        rows = [image[None]] if first == 0 else []
        for name, plan in plans.items():
            low, high = max(first - starts[name], 0), min(last - starts[name], plan.count)
            if low < high:
                rows.append(plan.build(slice(low, high)))
        yield rows[0] if len(rows) == 1 else torch.cat(rows)


def _compute_scores(score: Score, images: Tensor) -> Tensor:
    scores = score(images)
    if scores.shape != images.shape[:1]:
        raise UsageError(
            f"The scores of {len(images)} images have the shape [{len(images)}], not "
            f"{list(scores.shape)}."
        )
    if not scores.isfinite().all():
        raise UsageError(
            "The model's score of an altered picture is NaN or infinity, so nothing can be "
            "compared."
        )
    return scores.detach().float()
