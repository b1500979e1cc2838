"""Names of annotations and the classes of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from camcli.errors import ConfigError
from camcli.models.labels.label_matching import match_labels, read_meanings
from tests.checkout import ROOT

LABELS = (
    "tench, Tinca tinca",
    "tabby, tabby cat",
    "crane",
    "crane",
    "sports car, sport car",
    "bus",
)


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("tench", (0,)),
        ("Tinca_tinca", (0,)),
        ("tabby-cat", (1,)),
        ("tench, Tinca tinca", (0,)),
        ("001.Tabby_cat", (1,)),
        ("cranes", (2, 3)),
        ("sports car", (4,)),
        ("bus", (5,)),
    ],
)
def test_names_and_synonyms(name: str, indices: tuple[int, ...]) -> None:
    matches = match_labels([name, name], LABELS)
    assert matches.categories == {name: indices}
    assert matches.notes == ()


def test_names_that_are_no_class() -> None:
    # a part of a name is none: a hot dog is no dog
    matches = match_labels(["cat", "tenches", ""], LABELS)
    assert matches.categories == {}
    cat, tenches = matches.notes
    assert cat.startswith("'cat' is no class of the model, and is left out.")
    assert "Closest: 'tench'" in tenches
    (note,) = match_labels(["cat"], None).notes
    assert "whose classes have no names: give a class map" in note


def test_the_likeliest_of_several() -> None:
    matches = match_labels(["crane", "cat"], LABELS, {"cat": (1, 0)})
    logits = torch.tensor([5.0, 1, 2, 3, 0, 0])
    assert matches.likeliest("crane", logits) == 3
    assert matches.likeliest("cat", logits) == 0
    assert matches.likeliest("dog", logits) is None


def test_meanings_come_first_and_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text("coco_class,imagenet_indices\ncat,0 2-4\n\nbus,5\n")
    meanings = read_meanings(file, 6)
    assert meanings == {"cat": (0, 2, 3, 4), "bus": (5,)}
    assert match_labels(["Cats"], LABELS, meanings).categories == {"Cats": (0, 2, 3, 4)}


@pytest.mark.parametrize("line", ["cat,6", "cat,x 3", "cat,1,2", "cat,9999999999", "bus,5\ncat,"])
def test_meanings_that_are_none(line: str, tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text(line + "\n")
    with pytest.raises(ConfigError, match="is not `name,indices` with classes from 0 to 5"):
        read_meanings(file, 6)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_meanings(tmp_path / "none.csv", 6)


@pytest.mark.skipif(
    not (ROOT.parent / "shared" / "coco128").exists(), reason="needs the photos of ../shared"
)
def test_the_classes_of_coco_that_imagenet_has() -> None:
    meanings = read_meanings(ROOT.parent / "shared" / "coco128" / "imagenet.csv", 1000)
    assert len(meanings) == 58
    assert meanings["bicycle"] == (444, 671)
