"""Names of classes that stand beside the weights become the labels, where they fit."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import camcli
from camcli.cli.app import main
from camcli.models.checkpoints.checkpoint import read_checkpoint
from camcli.runs import read_manifest

ARCH, NAMES = "test_resnet", ("ant", "bee", "wasp")
BY_NAME = {name: index for index, name in enumerate(NAMES)}
PICTURE = Path("demo_images") / "cat_and_coffee.jpg"


def save(file: Path, beside: dict[str, Any], classes: int = len(NAMES)) -> Path:
    model = timm.create_model(ARCH, num_classes=classes)
    torch.save({"state_dict": model.state_dict(), **beside}, file)
    return file


@pytest.mark.parametrize(
    "beside",
    [
        {"class_to_idx": BY_NAME},
        {"classes": list(NAMES)},
        {"class_names": NAMES},
        {"idx_to_class": {0: "ant", 1: "bee", 2: "wasp"}},
        {"id2label": {"2": "wasp", "0": "ant", "1": "bee"}},
        {"meta": {"CLASSES": NAMES}},  # mmcv
        {"meta": {"dataset_meta": {"classes": NAMES}}},  # mmengine
        {"hyper_parameters": {"class_names": list(NAMES), "lr": 0.1}},  # Lightning
        {"args": argparse.Namespace(class_to_idx=BY_NAME)},
        # lists of other things do not count
        {"labels": [0, 1, 2, 2, 1], "class_to_idx": BY_NAME},
        {"labels": ["a photo", "another"], "classes": list(NAMES)},
    ],
    ids=lambda beside: "-".join(beside),
)
def test_names_beside_the_weights_are_the_labels(tmp_path: Path, beside: dict[str, Any]) -> None:
    file = save(tmp_path / "saved.pt", beside)
    classifier = camcli.load_model(ARCH, checkpoint=file, device="cpu")
    assert classifier.labels == NAMES
    (said,) = classifier.warnings
    assert re.fullmatch(r"The classes have the checkpoint's names \(.+\); --class-map .+", said)


@pytest.mark.parametrize(
    "beside",
    [
        {"classes": ["ant", "bee"]},  # another number
        {"class_to_idx": {"ant": 1, "bee": 2, "wasp": 3}},  # from 1: which class is which?
        {"class_to_idx": BY_NAME, "class_names": ["bee", "ant", "wasp"]},  # two orders
        {"idx_to_class": {0: "ant", 2: "wasp"}},  # a class without a name
    ],
    ids=lambda beside: "-".join(beside),
)
def test_names_that_do_not_fit_are_no_labels(tmp_path: Path, beside: dict[str, Any]) -> None:
    file = save(tmp_path / "saved.pt", beside)
    classifier = camcli.load_model(ARCH, checkpoint=file, device="cpu")
    assert classifier.labels is None
    (said,) = classifier.warnings
    assert "is not used: name them with --class-map" in said


@pytest.mark.parametrize("classes", [[0, 1, 2], {"ant": torch.zeros(2)}, 3], ids=type)
def test_what_is_no_name_is_not_spoken_of(tmp_path: Path, classes: Any) -> None:
    file = save(tmp_path / "saved.pt", {"classes": classes})
    classifier = camcli.load_model(ARCH, checkpoint=file, device="cpu")
    assert (classifier.labels, classifier.warnings) == (None, ())


def test_what_a_person_names_comes_first(tmp_path: Path) -> None:
    file = save(tmp_path / "saved.pt", {"classes": list(NAMES)})
    mine = ("Ameise", "Biene", "Wespe")
    classifier = camcli.load_model(ARCH, checkpoint=file, labels=mine, device="cpu")
    assert (classifier.labels, classifier.warnings) == (mine, ())


def test_synsets_do_not_take_the_place_of_words(tmp_path: Path) -> None:
    synsets = {f"n{index:08}": index for index in range(1000)}
    file = save(tmp_path / "saved.pt", {"class_to_idx": synsets}, 1000)
    labels = camcli.load_model(ARCH, checkpoint=file, device="cpu").labels
    assert labels is not None
    assert labels[1].startswith("goldfish")


def test_a_no_and_a_yes_have_the_names_that_were_saved(tmp_path: Path) -> None:
    file = save(tmp_path / "saved.pt", {"class_to_idx": {"healthy": 0, "ill": 1}}, 1)
    classifier = camcli.load_model(ARCH, checkpoint=file, device="cpu")
    assert classifier.labels == ("healthy", "ill")


def test_what_stands_under_a_name_is_plain_text_and_numbers(tmp_path: Path) -> None:
    beside = {"classes": [torch.zeros(1)], "names": {"ant": 0.5}, "labels": [["ant"]]}
    assert read_checkpoint(save(tmp_path / "saved.pt", beside)).class_names == {}


def test_a_class_is_asked_by_the_name_that_was_saved(tmp_path: Path) -> None:
    file = save(tmp_path / "saved.pt", {"class_to_idx": BY_NAME})
    out = tmp_path / "out"
    words = [str(PICTURE), "-m", ARCH, "--checkpoint", str(file), "--target-category", "bee"]
    assert main([*words, "--save-path", str(out), "--device", "cpu", "-q"]) == 0
    (record,) = read_manifest(out / "manifest.jsonl")
    assert (record["category"], record["label"]) == (1, "bee")
