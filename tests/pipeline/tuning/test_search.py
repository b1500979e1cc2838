"""The search: what it finds, what it costs, and that pictures held back choose nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from camcli.config import from_keywords
from camcli.errors import UsageError
from camcli.media.annotations import Annotations
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline.evaluation.evaluation import Truth, know_truth
from camcli.pipeline.tuning import search as search_module
from camcli.pipeline.tuning.candidates import Candidate
from camcli.pipeline.tuning.map_store import MapStore
from camcli.pipeline.tuning.schedule import make_schedule
from camcli.pipeline.tuning.search import SearchStep, TuningResult, tune
from camcli.pipeline.tuning.search_report import (
    BEST,
    GRADCAM,
    TUNED,
    compare_held,
    describe_score,
    describe_search,
    is_worth_it,
    list_verdicts,
    name_contenders,
    summarise,
)
from camcli.pipeline.tuning.tuning_plan import TuningPlan, plan_tuning
from camcli.records import Source
from tests.networks import Attending
from tests.pipeline.tuning.networks import Astray, annotate, draw_pictures, make_classifier


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "in")


def search(
    folder: Path,
    truth: Annotations | None = None,
    *,
    classifier: Classifier | None = None,
    budget: int = 6000,
    steps: list[SearchStep] | None = None,
    **given: Any,
) -> tuple[TuningPlan, TuningResult]:
    classifier = classifier or make_classifier()
    sources = find_sources([folder])
    options = from_keywords(batch_size=4, **given)
    tuning = plan_tuning(classifier, options, has_boxes=truth is not None)
    known = know_truth(truth, sources, classifier) if truth else Truth()
    if isinstance(classifier.module, Astray):
        classifier.module.forwards = classifier.module.backwards = 0
    reported: list[SearchStep] = [] if steps is None else steps
    return tuning, tune(tuning, sources, known, budget, reported.append)


def test_the_early_layer_is_found_that_has_the_object(folder: Path) -> None:
    tuning, result = search(folder, annotate())
    assert tuning.layers == ("early", "late")
    assert tuning.gradcam.parts == (("gradcam", "late"),)
    assert {layer for _, layer in result.chosen.parts} == {"early"}
    scores = dict(result.ranking)
    assert result.ranking[0][1] == max(scores.values()) > 0.6 > scores[tuning.gradcam]
    # method best is no pair once more, in whatever order
    assert [c for c in scores if c.is_same(tuning.best)] == [tuning.best]
    # of four metrics the mean
    assert scores[result.chosen] == pytest.approx(result.means[result.chosen].mean())
    score, peak, *_ = compare_held(tuning, result)
    assert (score.metric, peak.metric) == ("score", "pointing_game")
    assert [row.name for row in peak.contenders] == [TUNED, GRADCAM, BEST]
    assert [row.mean for row in peak.contenders][:2] == [1, 0]
    assert name_contenders(tuning, result)[BEST] == tuning.best


def test_enough_pictures_say_that_the_choice_is_worth_it(tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "in", 24)
    tuning, result = search(folder, annotate(24), method="layercam,hirescam")
    held = compare_held(tuning, result)
    assert is_worth_it(held)
    (rival,) = [row for row in held[0].contenders if row.name == GRADCAM]
    # eight pictures of eight, corrected for two rivals
    assert rival.p is not None and rival.p <= 2 * 2 / 2**8
    lines = "\n".join(list_verdicts(tuning, result, held))
    assert "better (p 0.0" in lines and "not worth" not in lines
    plain = summarise(tuning, result, held, 24, 6000)
    assert plain["is_worth_it"] is True and plain["ranked_by"] == "boxes"
    assert len(plain["chosen_on"]) == 16 and len(plain["held_back"]) == 8
    assert not set(plain["chosen_on"]) & set(plain["held_back"])
    assert plain["ranking"][0]["candidate"] == plain["tuned"]["candidate"]


def test_all_candidates_of_a_picture_come_from_one_pass_forward_and_one_back(folder: Path) -> None:
    classifier = make_classifier()
    tuning, result = search(folder, annotate(), classifier=classifier)
    assert len(result.ranking) > 20
    module = classifier.module
    assert isinstance(module, Astray)
    assert (module.forwards, module.backwards) == (9, 9)
    assert result.passes == 18 == make_schedule(9, tuning.size, 6000).passes


def test_pictures_held_back_choose_nothing(folder: Path) -> None:
    _, result = search(folder, annotate())
    held = result.sources[result.schedule.search :]
    assert len(result.sources) == 9 and len(held) == 3
    # of these the boxes are elsewhere now
    wrong = tuple(int(source.path.stem) for source in held)
    _, other = search(folder, annotate(wrong=wrong))
    assert other.sources == result.sources
    assert other.ranking == result.ranking
    assert other.chosen == result.chosen
    assert not np.allclose(other.held[other.chosen], result.held[result.chosen])
    # and of those that choose, that does matter
    rest = {*range(9)} - {*wrong}
    _, third = search(folder, annotate(wrong=tuple(rest)))
    assert third.chosen != result.chosen


def test_the_seed_says_which_pictures_are_held_back(folder: Path) -> None:
    def hold_back(seed: int) -> tuple[Source, ...]:
        _, result = search(folder, annotate(), seed=seed, method="gradcam")
        return result.sources[result.schedule.search :]

    assert hold_back(0) == hold_back(0) != hold_back(1)


def test_what_is_asked_decides_what_counts(folder: Path) -> None:
    scores = {}
    for aim, metrics in (
        ("evidence", ("pointing_game", "heat_inside")),
        ("extent", ("pixel_ap", "box_iou")),
        ("balanced", ("pointing_game", "heat_inside", "pixel_ap", "box_iou")),
    ):
        tuning, result = search(folder, annotate(), best_for=aim, method="gradcam")
        assert tuning.counting == metrics
        places = [tuning.metrics.index(name) for name in metrics]
        for candidate, score in result.ranking:
            assert score == pytest.approx(result.means[candidate][places].mean())
        scores[aim] = dict(result.ranking)[tuning.gradcam]
        assert f"ranked by boxes, for {aim}: the mean of {metrics[0]}" in describe_score(tuning)
    assert len(set(scores.values())) == 3


def test_without_boxes_faithfulness_ranks_within_the_budget(folder: Path) -> None:
    classifier = make_classifier()
    budget = 900
    tuning, result = search(
        folder, classifier=classifier, budget=budget, method="gradcam,layercam,hirescam"
    )
    assert "ranked by faithfulness, since there are no boxes" in describe_score(tuning)
    module = classifier.module
    assert isinstance(module, Astray)
    schedule = make_schedule(9, tuning.size, budget)
    assert module.forwards + module.backwards == result.passes <= schedule.passes <= budget
    assert module.backwards == schedule.pictures
    said = describe_search(tuning, schedule, 9, budget)
    assert "6 single maps (gradcam, layercam, hirescam at early, late)" in said
    assert f"at most {schedule.passes} passes (--budget 900)" in said
    # what is hidden first at the decoy's place leaves the score as it is
    deletion = {c: values[0] for c, values in result.means.items()}
    assert {layer for _, layer in result.chosen.parts} == {"early"}
    assert result.chosen in deletion
    finest = tuning.metrics.index("deletion")
    held = result.held
    assert held[result.chosen][:, finest].mean() < held[tuning.gradcam][:, finest].mean()


def test_what_cannot_be_read_or_is_not_known_is_told_and_the_rest_is_used(folder: Path) -> None:
    (folder / "04.png").write_bytes(b"torn")
    steps: list[SearchStep] = []
    known = Annotations(annotate().pictures[1:], ("red",))
    _, result = search(folder, known, steps=steps, method="gradcam")
    assert result.schedule.pictures == 7 and len(result.sources) == 7
    (failed,), (useless,) = result.failed, result.useless
    assert failed.source.path.name == "04.png" and "04.png" in failed.error
    assert (
        useless.source.path.name == "00.png" and "--boxes says nothing about it" in useless.useless
    )
    assert [step for step in steps if step.error or step.useless] == sorted(
        (failed, useless), key=lambda step: step.done
    )
    for number in range(7):
        (folder / f"{number:02}.png").write_bytes(b"torn")
    with pytest.raises(UsageError, match="2 pictures can be used of 9: tune needs 3 or more"):
        search(folder, annotate(), method="gradcam")


def test_a_class_of_which_a_picture_has_no_object_leaves_it_out(folder: Path) -> None:
    with pytest.raises(UsageError, match="0 pictures can be used of 9"):
        search(folder, annotate(), method="gradcam", target_category="green")
    # of what is no class of the model it is known without a pass
    known = annotate().pictures
    other = replace(known[2], instances=(replace(known[2].instances[0], label="giraffe"),))
    classifier = make_classifier()
    truth = Annotations((*known[:2], other, *known[3:]), ("red", "giraffe"))
    _, result = search(folder, truth, classifier=classifier, method="gradcam")
    (useless,) = result.useless
    assert useless.source.path.name == "02.png" and not useless.error
    assert "none of its objects has a class of the model" in useless.useless
    module = classifier.module
    assert isinstance(module, Astray)
    assert module.forwards == 8 and result.passes == 16


def test_a_choice_that_is_not_better_is_not_praised(folder: Path) -> None:
    # every box is at the decoy: GradCAM is right
    tuning, result = search(folder, annotate(wrong=tuple(range(9))))
    held = compare_held(tuning, result)
    assert not is_worth_it(held)
    lines = "\n".join(list_verdicts(tuning, result, held))
    assert "not worth using" in lines or "the preset is not needed" in lines
    # three pictures tell nothing, however good the choice
    tuning, result = search(folder, annotate())
    lines = "\n".join(list_verdicts(tuning, result, compare_held(tuning, result)))
    assert "the preset is not worth using" in lines
    assert "of 3 pictures held back no difference can be told from noise" in lines


def test_named_methods_and_layers_are_searched_and_no_others(folder: Path) -> None:
    tuning, _ = search(
        folder, annotate(), method="hirescam@early,layercam,eigencam", target_layers="late"
    )
    assert [c.parts for c in tuning.singles] == [
        (("hirescam", "early"),), (("layercam", "late"),), (("eigencam", "late"),),
    ]  # fmt: skip
    tuning, _ = search(folder, annotate(), method="all")
    assert {"gradcam", "layercam", "eigencam", "fem"} <= {*tuning.methods}
    assert not {"scorecam", "randomcam", "legrad"} & {*tuning.methods}
    tuning, _ = search(folder, annotate())
    assert "gradcam" in tuning.methods and "eigencam" not in tuning.methods
    # what a model cannot have is told where it was named
    tuning, _ = search(folder, annotate(), method="gradcam,gradattention")
    assert tuning.methods == ("gradcam",) and set(tuning.left_out) == {"gradattention"}


def test_what_cannot_be_searched_is_refused() -> None:
    classifier = make_classifier()

    def plan(has_boxes: bool = True, **given: Any) -> TuningPlan:
        return plan_tuning(classifier, from_keywords(**given), has_boxes=has_boxes)

    with pytest.raises(UsageError, match="scorecam needs more passes"):
        plan(method="gradcam,scorecam")
    with pytest.raises(UsageError, match="Method best is always among the candidates"):
        plan(method="best")
    with pytest.raises(
        UsageError, match="--combine, --eigen-smooth: tune itself tries single maps"
    ):
        plan(combine="mean", eigen_smooth=True)
    with pytest.raises(UsageError, match="extent asks what the object covers"):
        plan(best_for="extent", has_boxes=False)
    with pytest.raises(UsageError, match="genericattention looks at no layer"):
        plan(method="genericattention@early")
    with pytest.raises(UsageError, match="One class a picture is evaluated"):
        plan(top_k=2)


def test_a_transformers_attention_has_a_pass_of_its_own(folder: Path) -> None:
    classifier = make_classifier(Attending())
    tuning, result = search(
        folder, annotate(), classifier=classifier, method="gradcam,genericattention"
    )
    assert ("genericattention", "") in tuning.plan.request.parts
    assert tuning.size.map_passes == 4 and result.passes == 36


def test_maps_that_are_not_finite_are_no_choice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Candidate.make_map

    def spoil(self: Candidate, *given: Any) -> torch.Tensor:
        made = make(self, *given)
        return made * torch.nan if ("layercam", "early") in self.parts else made

    monkeypatch.setattr(Candidate, "make_map", spoil)
    _, result = search(folder, annotate(), method="layercam")
    assert ("layercam", "early") not in result.chosen.parts
    assert np.isfinite(result.held[result.chosen]).all()
    scores = {str(candidate): score for candidate, score in result.ranking}
    assert scores["layercam@early"] == -np.inf < 0 < scores["layercam@late"]


def test_the_same_map_under_two_names_is_measured_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    measure = search_module.measure_all

    def count(metrics: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        counts.append(len(inputs["maps"]))
        return measure(metrics, inputs, *given, **options)

    monkeypatch.setattr(search_module, "measure_all", count)
    _, result = search(folder, annotate(), method="layercam@early,gradcamelementwise@early")
    # what is positive everywhere gives both methods the same map; two rivals stand beside
    assert counts[: result.schedule.search] == [3] * result.schedule.search
    scores = {str(candidate): score for candidate, score in result.ranking}
    assert scores["layercam@early"] == scores["gradcamelementwise@early"]
    assert not any("layercam@early + grad" in name for name in scores)


def test_what_differs_by_rounding_alone_is_equal_and_the_first_of_it_counts() -> None:
    classifier = make_classifier()
    tuning = plan_tuning(classifier, from_keywords(method="gradcam"), has_boxes=True)
    with MapStore() as store:
        searching = search_module._Search(tuning, Truth(), store, lambda _: None)
        first, second, third = (Candidate((("layercam", layer),)) for layer in "abc")
        for candidate, value in ((first, 0.5), (second, 0.5 + 1e-8), (third, 0.51)):
            searching.values[candidate] = {0: np.full(4, value)}
        ranked = [c for c, _ in searching.rank((first, second, third), [0])]
    assert ranked == [third, first, second]
