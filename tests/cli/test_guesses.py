"""What a newcomer typed with the README alone, and was stopped or misled by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import camcli
from camcli.errors import CamvizError
from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("Fotos für Oma", "Closest in '.': 'Fotos für Oma'. A name with spaces stands in quotes."),
        ("flower.jpg --pretrained false", "'false' is no file, and a switch takes no value"),
        ("flower.jpg -m resnet50,resnet18", "--compare MODEL puts another beside it"),
        ("flower.jpg -m best.pth", "A file of weights goes to --checkpoint."),
        ("compare flower.jpg", "no command: camviz IMAGE --compare MODEL"),
        ("list", "no command: camviz methods, or camviz models"),
        ("version", "no command: camviz --version"),
        # a tabby cat or a tiger cat, and no catamaran
        ("flower.jpg --target-category cat", "Category 'cat' could be 281 'tabby, tabby cat', 282"),
    ],
)
def test_the_command_line_says_what_is_meant(run: Run, folder: Path, typed: str, said: str) -> None:
    (folder / "Fotos für Oma").mkdir()
    result = run(*typed.split(" "))
    assert result.code == 2 and said in result.err


@pytest.fixture(scope="module")
def classifier() -> camcli.Classifier:
    return camcli.load_model(device="cpu", img_size=64)


Call = Callable[[camcli.Classifier], Any]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: camcli.explain(c, "flower.jpg")[0], "next(...) gives the first"),
        (lambda c: camcli.explain(c, "flower.jpg").heatmap, "next(...) gives the first"),
        (lambda c: camcli.explain(c, "Fotos für Oma"), "is a folder: give its pictures, as in"),
        (lambda c: camcli.explain(c, "*.jpg"), "'*.jpg' is for the command line"),
        (
            lambda c: camcli.explain(c, "https://a.b/c.jpg"),
            "c.jpg' is for the command line",
        ),
        (lambda _: camcli.GradCAM, "camcli.heatmaps(model, inputs, 'gradcam')"),
        (lambda _: camcli.GradCAMPlusPlus, "camcli.heatmaps(model, inputs, 'gradcam++')"),
        (lambda _: camcli.list_models, "camviz models lists them"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_python_says_what_is_meant(classifier: camcli.Classifier, call: Call, said: str) -> None:
    Path("Fotos für Oma").mkdir()
    with pytest.raises((CamvizError, AttributeError)) as told:
        call(classifier)
    assert said in str(told.value)


@pytest.mark.usefixtures("folder")
def test_explanations_say_what_they_are_and_one_makes_a_sheet(
    classifier: camcli.Classifier,
) -> None:
    explanations = camcli.explain(classifier, Image.open("flower.jpg"))
    assert repr(explanations) == (
        "<Explanations, made one by one: next(...) gives the first, list(...) all>"
    )
    (one,) = explanations
    assert repr(camcli.Sheet(one)) == repr(camcli.Sheet([one]))
    assert not hasattr(camcli, "no_such_thing")
