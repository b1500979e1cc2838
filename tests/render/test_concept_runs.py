"""Deep feature factorization from a picture to its record and the picture with a legend."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import camcli
from camcli.cli.app import main
from camcli.errors import MethodError, UsageError
from camcli.models.load import Classifier
from camcli.records import Concept, Preprocessing
from camcli.render.concepts import PALETTE
from tests.methods.test_factorization import Primary
from tests.networks import Staged
from tests.test_demo import PHOTO


def _classifier(module: torch.nn.Module, labels: tuple[str, ...] | None, n: int) -> Classifier:
    preprocessing = Preprocessing((48, 48), (48, 48), mean=(0.0,) * 3, std=(1.0,) * 3, fit="squash")
    return Classifier(module.eval(), "by hand", "timm", preprocessing, labels, "by hand", n)


@pytest.fixture(scope="module")
def squares() -> Image.Image:
    picture = Image.new("RGB", (240, 120))
    picture.paste((200, 0, 0), (0, 0, 80, 60))
    picture.paste((0, 0, 120), (160, 60, 240, 120))
    return picture


def test_each_square_is_a_concept_of_its_own_class(squares: Image.Image) -> None:
    primary = _classifier(Primary(), ("red, r", "green, g", "blue, b"), 3)
    (explanation,) = camcli.explain(
        primary, squares, "dff", target_layers="features", set={"concepts": 2}
    )
    assert explanation.details["concepts"].shape == (2, 48, 48)
    np.testing.assert_allclose(
        explanation.details["concepts"].sum(0), explanation.heatmap, rtol=1e-5
    )
    red, blue = explanation.concepts
    assert (red.labels[0], blue.labels[0]) == ("red, r", "blue, b")
    assert (red.categories[0], blue.categories[0]) == (0, 2)
    assert (red.colour, blue.colour) == PALETTE[:2]
    for index, concept in enumerate(explanation.concepts):
        logits = torch.from_numpy(explanation.details["concept_logits"][index])
        expected = logits.softmax(0).sort(descending=True)
        assert concept.probabilities == pytest.approx(expected.values.tolist())
        assert concept.categories == tuple(expected.indices.tolist())
    drawn = explanation.overlay(alpha=1)
    assert drawn.shape[1] > 240 and drawn.shape[0] > 120 + 2 * 14
    left = (drawn.shape[1] - 240) // 2
    assert tuple(drawn[30, left + 40]) == (0xD5, 0x5E, 0x00)
    assert tuple(drawn[90, left + 200]) == (0x56, 0xB4, 0xE9)
    assert tuple(drawn[90, left + 40]) == (0, 0, 0)
    # what others draw in place of it, the raw map, is the sum
    assert explanation.map.method == "dff"


def test_other_methods_have_no_concepts(squares: Image.Image) -> None:
    (explanation,) = camcli.explain(_classifier(Staged(), None, 5), squares, target_layers="last")
    assert explanation.concepts == ()
    assert explanation.overlay().shape == (120, 240, 3)


def test_a_single_logit_is_a_no_and_a_yes(squares: Image.Image) -> None:
    single = _classifier(Staged(1), ("no", "yes"), 1)
    (explanation,) = camcli.explain(
        single, squares, "dff", target_layers="last", set={"concepts": 3}
    )
    assert len(explanation.concepts) == 3
    for concept, (logit,) in zip(
        explanation.concepts, explanation.details["concept_logits"], strict=True
    ):
        yes = 1 / (1 + np.exp(-float(logit)))
        named = dict(zip(concept.labels, concept.probabilities, strict=True))
        assert named == pytest.approx({"yes": yes, "no": 1 - yes}, abs=1e-5)


def test_without_a_classifier_concepts_have_no_classes(tmp_path: Path) -> None:
    headless = camcli.load_model("test_vit", num_classes=0, pretrained=False, device="cpu")
    (explanation,) = camcli.explain(headless, PHOTO, "dff", set={"concepts": 3})
    assert explanation.concepts == tuple(Concept(colour) for colour in PALETTE[:3])
    assert explanation.details["concept_logits"].shape == (3, 0)
    written = explanation.save(tmp_path / "a.png")
    with Image.open(written) as picture:
        assert picture.height > explanation.picture.size[0] + 2 * 14


def test_an_empty_map_leaves_the_plain_picture(squares: Image.Image) -> None:
    black = Image.new("RGB", squares.size)
    (explanation,) = camcli.explain(
        _classifier(Primary(), None, 3), black, "dff", target_layers="features", set={"concepts": 2}
    )
    assert "zero everywhere" in explanation.warnings[0]
    assert np.array_equal(explanation.overlay(), np.asarray(black))


def test_the_record_names_the_classes_of_each_concept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "concepts.png"
    typed = [
        "--method",
        "dff",
        "--set",
        "concepts=3",
        "--fit",
        "squash",
        "--device",
        "cpu",
        "--json",
    ]
    assert main([str(PHOTO), *typed, "--save-path", str(path)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["options"] == {"concepts": 3}
    assert (record["target"], record["outputs"]) == ("", [str(path)])
    best = [concept["labels"][0].split(",")[0] for concept in record["concepts"]]
    assert best[:2] == ["Egyptian cat", "espresso"]
    assert [concept["colour"] for concept in record["concepts"]] == list(PALETTE[:3])
    classifier = camcli.load_model(device="cpu", fit="squash")
    (explanation,) = camcli.explain(classifier, PHOTO, "dff", set={"concepts": 3})
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture), explanation.overlay())


@pytest.mark.parametrize("concepts", [0, -1, 13])
def test_a_number_of_concepts_that_cannot_be_is_refused(
    concepts: int, squares: Image.Image
) -> None:
    staged = _classifier(Staged(), None, 5)
    asked = {"target_layers": "middle", "set": {"concepts": concepts}}
    with pytest.raises(UsageError, match=rf"concepts is 1 to 12 in 12 channels.*not {concepts}\."):
        list(camcli.explain(staged, squares, "dff", **asked))


def test_several_layers_are_explained_one_by_one(squares: Image.Image) -> None:
    staged, layers = _classifier(Staged(), None, 5), ["middle", "last"]
    with pytest.raises(MethodError, match=r"dff .*--layer-fusion none"):
        camcli.explain(staged, squares, "dff", target_layers=layers)
    explanations = list(
        camcli.explain(staged, squares, "dff", target_layers=layers, layer_fusion="none")
    )
    assert [e.details["concepts"].shape for e in explanations] == [(2, 12, 12), (2, 6, 6)]
    assert explanations[0].concepts != explanations[1].concepts


def test_what_rounding_left_of_a_concept_speaks_for_nothing(squares: Image.Image) -> None:
    primary = _classifier(Primary(), ("red", "green", "blue"), 3)
    (explanation,) = camcli.explain(
        primary, squares, "dff", target_layers="features", set={"concepts": 3}
    )
    assert [bool(concept.labels) for concept in explanation.concepts] == [True, True, False]
    assert len(explanation.overlay()) > squares.height
