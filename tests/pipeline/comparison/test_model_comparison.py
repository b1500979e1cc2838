"""`--compare`: two models of the same classes beside each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from camcli.cli.app import main
from camcli.config import from_keywords
from camcli.errors import UsageError
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.models.state import hash_weights
from camcli.pipeline import RunCallbacks, carry_out_plan, make_plan
from camcli.pipeline.comparison.model_comparison import compare_plans
from camcli.pipeline.sheets.run_sheet import DrawnSheet
from camcli.records import Preprocessing, Record
from tests.networks import Staged

NAMES = ("cat", "dog", "fox", "owl")


def make_classifier(name: str, seed: int, size: int = 32) -> Classifier:
    preprocessing = Preprocessing(
        (size, size), (size, size), mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash"
    )
    return Classifier(
        Staged(4, seed).eval(), name, "timm", preprocessing, NAMES, "by hand", 4, in_chans=3
    )


@pytest.fixture(scope="module")
def one() -> Classifier:
    return make_classifier("one", 0)


@pytest.fixture(scope="module")
def two() -> Classifier:
    return make_classifier("two", 1, 48)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    draw = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(draw.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "in" / name)
    return tmp_path / "in"


def carry(
    one: Classifier, two: Classifier, folder: Path, own_scales: bool = False, **given: Any
) -> tuple[list[Record], DrawnSheet | None]:
    defaults = {"compare": "two", "target_layers": "last", "save_path": folder.parent / "out"}
    options = from_keywords(**{**defaults, **given})
    plan = compare_plans(make_plan(one, options), make_plan(two, options), own_scales=own_scales)
    drawn: list[DrawnSheet] = []
    watch = RunCallbacks(drawn=drawn.append)
    outcomes = carry_out_plan(plan, find_sources([folder]), options, callbacks=watch)
    records = [record for outcome in outcomes for record in outcome.records]
    return records, drawn[0] if drawn else None


def test_each_picture_has_both_maps_on_one_scale_and_their_difference(
    one: Classifier, two: Classifier, folder: Path
) -> None:
    records, drawn = carry(one, two, folder, top_k=2, save_map="npy")
    assert [r.model for r in records] == ["one", "two", "one - two"] * 4
    for first, second, difference in zip(*[iter(records)] * 3, strict=True):
        assert first.category == second.category == difference.category
        assert first.scale == second.scale == difference.scale
        maxima = [np.load(r.outputs[1]).max() for r in (first, second)]
        assert first.scale == (0.0, pytest.approx(max(maxima)))
        assert difference.compared_with == "two"
        assert (first.weights, second.weights) == tuple(hash_weights(c.module) for c in (one, two))
        names = [Path(r.outputs[0]).name for r in (first, second, difference)]
        assert "_two_" in names[1] and "_minus-two_" in names[2] and "two" not in names[0]
    assert drawn and drawn.files[0].exists() and not drawn.missing


def test_the_second_model_explains_the_classes_of_the_first(
    one: Classifier, two: Classifier, folder: Path
) -> None:
    records, _ = carry(one, two, folder)
    options = from_keywords(
        target_layers="last",
        save_path=folder.parent / "alone",
        target_category=[records[0].category],
    )
    outcomes = carry_out_plan(make_plan(two, options), find_sources([folder]), options)
    alone = [record for outcome in outcomes for record in outcome.records]
    second = records[1]
    assert (second.category, second.probability) == (
        alone[0].category, pytest.approx(alone[0].probability),
    )  # fmt: skip
    assert (second.minimum, second.maximum) == pytest.approx((alone[0].minimum, alone[0].maximum))


def test_a_weak_map_is_told_of_and_can_have_its_own_scale(
    one: Classifier, two: Classifier, folder: Path
) -> None:
    faint = replace(two, module=Staged(4, 1).eval())
    with torch.no_grad():
        faint.module.fc.weight.mul_(1e-3)
    records, _ = carry(one, faint, folder)
    assert any("times weaker: --scale image draws" in w for r in records for w in r.warnings)
    records, _ = carry(one, faint, folder, own_scales=True, scale="image")
    assert [r.scale for r in records[:3]] == [None, None, (0.0, 1.0)]
    assert not any("times weaker" in w for r in records for w in r.warnings)


def test_methods_whose_colours_are_no_values_stand_beside_each_other(
    one: Classifier, two: Classifier, folder: Path
) -> None:
    records, _ = carry(one, two, folder, method="guidedbackprop,eigencam")
    assert [(r.method, r.model) for r in records[:5]] == [
        ("guidedbackprop", "one"), ("guidedbackprop", "two"),
        ("eigencam", "one"), ("eigencam", "two"), ("eigencam", "one - two"),
    ]  # fmt: skip


def test_resuming_knows_the_second_model(one: Classifier, two: Classifier, folder: Path) -> None:
    assert carry(one, two, folder)[0]
    assert carry(one, two, folder, skip_existing=True)[0] == []
    other = make_classifier("two", 2)
    assert carry(one, other, folder, skip_existing=True)[0]


def test_models_of_other_classes_are_refused(one: Classifier, two: Classifier) -> None:
    plan = make_plan(one, from_keywords())
    few = replace(make_classifier("few", 0), module=Staged(3).eval(), num_classes=3, labels=None)
    with pytest.raises(UsageError, match="'one' has 4, and 'few' 3"):
        compare_plans(plan, make_plan(few, from_keywords()))
    renamed = replace(two, labels=("cat", "dog", "wolf", "owl"))
    with pytest.raises(UsageError, match="'fox' where 'two' has 'wolf'"):
        compare_plans(plan, make_plan(renamed, from_keywords()))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"layers_sweep": True}, "--layers-sweep"),
        ({"scale": "run"}, "--scale run"),
        ({"threshold": 0.5}, "--threshold"),
        ({"text": "a cat"}, "--text"),
    ],
)
def test_what_does_not_go_together_is_refused(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=f"does not go together with {said}"):
        from_keywords(compare="two", **given)


def test_from_the_command_line_by_a_checkpoint_of_the_same_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    torch.manual_seed(0)
    for name in ("first", "second"):
        torch.save(
            timm.create_model("test_vit", num_classes=4).state_dict(), tmp_path / f"{name}.pth"
        )
    typed = ["-m", "test_vit", "--num-classes", "4", "--checkpoint", str(tmp_path / "first.pth")]
    compared = ["--compare", str(tmp_path / "second.pth"), "--sheet", str(tmp_path / "two.png")]
    assert main([str(folder / "a.png"), *typed, *compared, "--save-path", str(tmp_path / "o")]) == 0
    printed = capsys.readouterr()
    assert f"sheet: {tmp_path / 'two.png'}" in printed.err
    names = sorted(path.name for path in (tmp_path / "o").glob("*.png"))
    assert len(names) == 3 and sum("test_vit-second" in name for name in names) == 2
