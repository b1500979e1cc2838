"""ADCC: average drop, coherency and complexity in one number."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.metrics.faithfulness.coherency import Explain, coherency
from camcli.metrics.faithfulness.complexity import complexity
from camcli.metrics.faithfulness.confidence import average_drop
from camcli.metrics.perturbation import BATCH_SIZE, Score
from camcli.registry import metric


@metric(
    "adcc",
    family="faithfulness",
    direction="higher",
    range=(0, 1),
    paper="arXiv:2104.10252",
    passes=2,
    explanations=1,
)
def adcc(
    unit_maps: Tensor,
    image: Tensor,
    score: Score,
    explain: Explain,
    *,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """The harmonic mean of coherency, 1 - complexity and 1 - average drop, arXiv:2104.10252.

    The mean is 0 where one of the three is 0.

    unit_maps [b H W], image [c H W], score [n c H W] -> [n], a probability, explain (images
    [n c H W], row) -> maps [n H W]; returns [b].
    """
    return harmonic_mean(
        coherency(unit_maps, image, explain),
        1 - complexity(unit_maps),
        1 - average_drop(unit_maps, image, score, batch_size=batch_size),
    )


def harmonic_mean(*parts: Tensor) -> Tensor:
    """Returns the harmonic mean of the parts, 0 where a part is 0 or below.  n x [b] -> [b]"""
    stack = torch.stack([part.float() for part in parts])
    positive = (stack > 0).all(0)
    mean = len(parts) / torch.where(positive, stack, 1).reciprocal().sum(0)
    return torch.where(positive, mean, 0)
