"""Reports a search: what is tried, and what the choice is worth on other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from camcli.metrics.significance import smallest_p
from camcli.pipeline.evaluation.evaluation import Contender
from camcli.pipeline.evaluation.metric_statistics import (
    SIGNIFICANT,
    ContenderResult,
    compare_contenders,
)
from camcli.pipeline.tuning.candidates import Candidate
from camcli.pipeline.tuning.schedule import Schedule
from camcli.pipeline.tuning.search import TuningResult, compute_scores
from camcli.pipeline.tuning.tuning_plan import TuningPlan
from camcli.registry import METRICS

SCORE = "score"
TUNED, GRADCAM, BEST = "tuned", "gradcam", "best"


@dataclass(frozen=True)
class HeldMetric:
    """What a metric, or the score, says of the choice and its rivals on pictures held back.

    Each `p` is the p value of the difference from the choice.
    """

    metric: str
    direction: str
    contenders: tuple[ContenderResult, ...]

    def find(self, name: str) -> ContenderResult | None:
        """Returns a contender by its name; None if the name stands for the choice itself."""
        return next((row for row in self.contenders if row.name == name), None)


def name_contenders(tuning: TuningPlan, result: TuningResult) -> dict[str, Candidate]:
    """Returns the choice and its rivals by their names in tables, without equal rivals."""
    named = {TUNED: result.chosen, GRADCAM: tuning.gradcam, BEST: tuning.best}
    return {n: c for n, c in named.items() if n == TUNED or c != result.chosen}


def compare_held(tuning: TuningPlan, result: TuningResult) -> tuple[HeldMetric, ...]:
    """Compares the choice with its rivals on the pictures held back; the score comes first."""
    named = name_contenders(tuning, result)
    values = np.stack([result.held[candidate] for candidate in named.values()], 1)
    values = values[np.isfinite(values).all((1, 2))]
    if not len(values):
        return ()
    contenders = [Contender(name) for name in named]
    scores = np.stack([compute_scores(tuning, values[:, c]) for c in range(len(named))], 1)
    measured = {SCORE: ("higher", scores)} | {
        name: (METRICS[name].direction, values[:, :, place])
        for place, name in enumerate(tuning.metrics)
    }
    return tuple(
        HeldMetric(
            name, direction, compare_contenders(contenders, of_metric, 0, tuning.options.seed)
        )
        for name, (direction, of_metric) in measured.items()
    )


def describe_search(tuning: TuningPlan, schedule: Schedule, pictures: int, budget: int) -> str:
    """Says what will be tried, on which pictures, and the largest number of passes."""
    size = tuning.size
    of = "" if schedule.pictures == pictures else f" of {pictures}"
    at = f" at {', '.join(tuning.layers)}" if tuning.layers else ""
    single, pairs, _ = schedule.rounds
    halved = f", {single} of them among all single maps, {pairs} among pairs"
    rounds = "" if size.has_boxes else halved
    return (
        f"candidates: {size.singles} single maps ({', '.join(tuning.methods)}{at}), up to "
        f"{size.pairs} pairs of the best of each layer, and method best\n"
        f"{schedule.pictures}{of} pictures: chosen on {schedule.search}{rounds}; held back: "
        f"{schedule.held}; at most {schedule.passes} passes (--budget {budget})"
    )


def describe_score(tuning: TuningPlan) -> str:
    """Says by which metrics candidates are ranked."""
    names = " and ".join(
        name if METRICS[name].direction == "higher" else f"1 - {name}" for name in tuning.counting
    )
    if tuning.has_boxes:
        return f"ranked by boxes, for {tuning.best_for}: the mean of {names.replace(' and ', ', ')}"
    return (
        f"ranked by faithfulness, since there are no boxes: the mean of {names}; this tells where "
        "the score comes from, and not whether a map lies on the object (--boxes)"
    )


def is_worth_it(held: Sequence[HeldMetric]) -> bool:
    """Tells whether the choice's score is better than GradCAM's beyond noise on other pictures."""
    rows = held[0] if held else None
    rival = rows.find(GRADCAM) if rows else None
    if rows is None or rival is None or rival.p is None:
        return False
    return rival.p < SIGNIFICANT and rows.contenders[0].mean > rival.mean


def list_verdicts(
    tuning: TuningPlan, result: TuningResult, held: Sequence[HeldMetric]
) -> tuple[str, ...]:
    """Says what was chosen, and whether it is worth using."""
    chosen = f"chosen: {describe_candidate(result.chosen)}"
    if not held:
        return (
            chosen,
            "no picture held back could be measured, so it is not known what the choice is worth",
        )
    pictures = f"{len(next(iter(result.held.values())))} pictures held back"
    if result.chosen == tuning.gradcam:
        return chosen, (
            "this is GradCAM at the default layer, which camviz draws anyway: the preset is not "
            "needed"
        )
    (first, *_), worth = held, is_worth_it(held)
    lines = [chosen, _compare(first, GRADCAM, pictures)]
    if not worth:
        lines.append(
            "so the choice is not better than GradCAM beyond noise: the preset is not worth using"
        )
        count = len(next(iter(result.held.values())))
        if smallest_p(count) * (len(first.contenders) - 1) >= SIGNIFICANT:
            lines.append(f"of {count} pictures held back no difference can be told from noise")
    lines.append(
        _compare(first, BEST, pictures) if first.find(BEST) else "method best chooses the same"
    )
    return tuple(lines)


def _compare(score: HeldMetric, name: str, pictures: str) -> str:
    rival, own = score.find(name), score.contenders[0]
    assert rival
    what = "GradCAM at the default layer" if name == GRADCAM else "method best"
    if rival.p is None:
        return f"score {own.mean:.3f}, {what} {rival.mean:.3f}: one picture has no interval"
    better = own.mean > rival.mean
    tells = "better" if better else "worse"
    if rival.is_noise:
        tells = "the difference may be noise"
    return f"score {own.mean:.3f} on {pictures}, {what} {rival.mean:.3f}: {tells} (p {rival.p:.3g})"


def describe_candidate(candidate: Candidate) -> str:
    """Returns a candidate as options: `--method a@x,b@y --combine product`."""
    how = f" --combine {candidate.combination}" if candidate.combination else ""
    if how or candidate.parts[0][1] == "":
        return f"--method {','.join(candidate.terms)}{how}"
    ((method, layer),) = candidate.parts
    return f"--method {method} --target-layers {layer}"


def summarise(
    tuning: TuningPlan, result: TuningResult, held: Sequence[HeldMetric], pictures: int, budget: int
) -> dict[str, Any]:
    """Returns the whole report in the form of its JSON."""
    schedule = result.schedule
    return {
        "model": tuning.plan.classifier.name,
        "ranked_by": "boxes" if tuning.has_boxes else "faithfulness",
        "best_for": tuning.best_for,
        "score": list(tuning.counting),
        "seed": tuning.options.seed,
        "budget": budget,
        "passes": result.passes,
        "pictures": pictures,
        "chosen_on": [str(source) for source in result.sources[: schedule.search]],
        "held_back": [str(source) for source in result.sources[schedule.search :]],
        "failed": [{"picture": str(s.source), "error": s.error} for s in result.failed],
        "useless": [{"picture": str(s.source), "why": s.useless} for s in result.useless],
        "methods": list(tuning.methods),
        "layers": list(tuning.layers),
        "left_out": dict(tuning.left_out),
        **{name: _to_plain(c) for name, c in name_contenders(tuning, result).items()},
        "ranking": [
            {
                **_to_plain(candidate),
                "score": score,
                **dict(zip(tuning.metrics, result.means[candidate].tolist(), strict=True)),
            }
            for candidate, score in result.ranking
        ],
        "worth": [asdict(metric) for metric in held],
        "is_worth_it": is_worth_it(held),
        "verdicts": list(list_verdicts(tuning, result, held)),
    }


def _to_plain(candidate: Candidate) -> dict[str, Any]:
    return {
        "candidate": str(candidate),
        "parts": list(candidate.terms),
        "combination": candidate.combination,
    }
