"""ARCC: ROAD, coherency and complexity in one number."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from camcli.metrics.faithfulness.adcc import harmonic_mean
from camcli.metrics.faithfulness.coherency import Explain, coherency
from camcli.metrics.faithfulness.complexity import complexity
from camcli.metrics.faithfulness.road import NOISE, road
from camcli.metrics.perturbation import BATCH_SIZE, Score
from camcli.registry import metric

SHARES = (0.2, 0.4, 0.6, 0.8)


@metric(
    "arcc",
    family="faithfulness",
    direction="higher",
    range=(0, 1),
    paper="arXiv:2605.14641",
    passes=lambda shares: 2 * len(shares) + 1,
    explanations=1,
)
def arcc(
    unit_maps: Tensor,
    image: Tensor,
    score: Score,
    explain: Explain,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = NOISE,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """The harmonic mean of coherency, 1 - complexity and twice `road`, cut off at 0 and 1.

    arXiv:2605.14641; the authors' shares are 20, 40, 60 and 80 %, their score is the probability.

    unit_maps [b H W], image [c H W], score [n c H W] -> [n], explain (images [n c H W], row) ->
    maps [n H W]; returns [b].
    """
    removed = road(
        unit_maps, image, score, shares=shares, noise=noise, seed=seed, batch_size=batch_size
    )
    return harmonic_mean(
        coherency(unit_maps, image, explain),
        1 - complexity(unit_maps),
        (2 * removed).clamp(0, 1),
    )
