"""The altered pictures whose scores metrics need: which pixels are replaced, and by what."""

from camcli.metrics.perturbation.baseline import make_baseline
from camcli.metrics.perturbation.curve import plan_curve, rank_pixels
from camcli.metrics.perturbation.imputation import impute
from camcli.metrics.perturbation.pass_plan import (
    BATCH_SIZE,
    Curve,
    PassPlan,
    Score,
    carry_out,
    score_altered,
)

__all__ = [
    "BATCH_SIZE",
    "Curve",
    "PassPlan",
    "Score",
    "carry_out",
    "impute",
    "make_baseline",
    "plan_curve",
    "rank_pixels",
    "score_altered",
]
