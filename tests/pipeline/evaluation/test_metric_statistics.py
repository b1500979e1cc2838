"""What is concluded from the pictures' values where some contenders have none."""

from __future__ import annotations

import json
import math

import numpy as np

from camcli.cli.commands.evaluate import format_cell
from camcli.pipeline.evaluation.evaluation import Contender
from camcli.pipeline.evaluation.metric_statistics import (
    describe_verdict,
    summarise_metric,
    to_plain,
)

CONTENDERS = (Contender("gradcam"), Contender("randomcam", True), Contender("uniform", True))


def test_a_contender_without_values_leaves_the_others_their_result() -> None:
    # a uniform map has no ranks, on any picture
    values = np.array([[0.9, 0.1, np.nan], [0.7, 0.3, np.nan], [0.8, 0.2, np.nan]])
    result = summarise_metric("flip_equivariance", CONTENDERS, values)
    assert result is not None
    assert (result.pictures, result.best) == (3, "gradcam")
    gradcam, random, uniform = result.contenders
    assert math.isclose(gradcam.mean, 0.8) and math.isclose(random.mean, 0.2)
    assert not uniform.has_value and (uniform.low, uniform.p) == (None, None)
    assert format_cell(uniform, is_best=False) == "- "
    (plain,) = json.loads(json.dumps(to_plain([result]), allow_nan=False))
    assert [row["mean"] for row in plain["contenders"]][2] is None


def test_a_picture_on_which_one_has_no_value_counts_for_nobody() -> None:
    values = np.array([[0.9, 0.1, 0.5], [np.nan, 0.9, 0.5], [0.7, 0.3, 0.5]])
    result = summarise_metric("flip_equivariance", CONTENDERS, values)
    assert result is not None and result.pictures == 2
    assert math.isclose(result.contenders[1].mean, 0.2)


def test_baselines_alone_have_a_best_one_among_them() -> None:
    values = np.array([[np.nan, 0.1, 0.5], [np.nan, 0.2, 0.4]])
    result = summarise_metric("flip_equivariance", CONTENDERS, values)
    assert result is not None
    assert result.best == result.best_method == "uniform"


def test_no_value_at_all_is_no_result() -> None:
    assert summarise_metric("flip_equivariance", CONTENDERS, np.full((2, 3), np.nan)) is None


def test_a_verdict_on_thirty_methods_is_a_line_that_can_be_read() -> None:
    contenders = [Contender(f"method{number}") for number in range(30)]
    result = summarise_metric("deletion", contenders, np.random.default_rng(0).random((3, 30)))
    assert result is not None
    noise = [row.name for row in result.contenders if row.is_noise]
    assert len(noise) == 29
    named = f"its difference from {', '.join(noise[:8])} and 21 more is noise"
    assert named in describe_verdict(result) and len(describe_verdict(result)) < 250
