"""A module that a person has at hand: taken as it is, and explained."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import camcli
from camcli.errors import CamvizWarning, ModelError, UsageError
from tests.networks import Staged
from tests.tiny_transformers import CLASSIFIERS, build_tiny

NAMES = ["ant", "bee", "cat", "dog", "elk"]
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
VIEW = {"mean": 0.5, "std": 0.5, "fit": "squash"}


def test_a_module_is_explained_with_names_and_preprocessing() -> None:
    module = Staged().train()
    (e,) = camcli.explain(
        module,
        PICTURE,
        labels=NAMES,
        preprocessing=VIEW,
        img_size=32,
        target_layers=module.last,
        target_category="cat",
    )
    assert (e.category, e.label, e.map.layers) == (2, "cat", ("last",))
    # the same as by hand
    module.eval()
    inputs = nn.functional.interpolate(
        torch.from_numpy(PICTURE)[None].permute(0, 3, 1, 2) / 255, 32
    )
    assert e.heatmap.shape == camcli.heatmaps(module, inputs)[0].shape


def test_it_is_left_as_it_was() -> None:
    module = Staged().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    strides = [weight.stride() for weight in module.parameters()]
    list(camcli.explain(module, PICTURE, preprocessing=VIEW, img_size=32))
    assert module.training and all(layer.training for layer in module.modules())
    assert [weight.stride() for weight in module.parameters()] == strides
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_was_assumed_is_told() -> None:
    with pytest.warns(CamvizWarning, match=r"224x224 pixels, ImageNet's mean and std.*preproc"):
        (e,) = camcli.explain(Staged(), PICTURE)
    assert e.label.startswith("class ")
    (assumed,) = camcli.load_model(Staged(), preprocessing={"mean": 0.5, "std": 0.5}).warnings
    assert assumed.startswith("preprocessing: 224x224 pixels, and a crop of the centre")


def test_a_module_of_timm_says_its_own() -> None:
    module = timm.create_model("test_resnet.r160_in1k")
    classifier = camcli.load_model(module)
    assert classifier.module is module and classifier.warnings == ()
    assert classifier.preprocessing.size == (160, 160)
    assert classifier.labels is not None and classifier.labels[281].startswith("tabby")
    # of other classes it knows no names
    assert camcli.load_model(timm.create_model("test_resnet", num_classes=7)).labels is None


def test_names_by_index_and_of_a_single_logit() -> None:
    some = camcli.load_model(Staged(), labels={1: "bee"}, preprocessing=VIEW, img_size=32)
    assert some.labels == ("", "bee", "", "", "")
    single = camcli.load_model(Staged(1), labels=["ham", "spam"], preprocessing=VIEW, img_size=32)
    assert (single.labels, single.num_categories) == (("ham", "spam"), 2)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"labels": NAMES[:4]}, "labels are 4 names, and the model has 5 classes"),
        ({"labels": {7: "x"}}, "labels name the class 7: the indices are 0 to 4"),
        ({"labels": [1, 2, 3, 4, 5]}, "1 is a int"),
        ({"labels": "names.txt"}, "a file of them goes to class_map"),
        ({"labels": NAMES, "class_map": "names.txt"}, "give one of them"),
        ({"checkpoint": "weights.pth"}, "taken as it is"),
        ({"pretrained": False}, "taken as it is"),
    ],
)
def test_mistakes_are_told(given: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        camcli.load_model(Staged(), img_size=32, preprocessing=VIEW, **given)  # type: ignore[arg-type]


def test_explain_says_what_it_takes(classifier: camcli.Classifier) -> None:
    with pytest.raises(UsageError, match=r"not a str: camcli\.load_model\('resnet50'\) makes one"):
        camcli.explain("resnet50", PICTURE)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give labels to load_model"):
        camcli.explain(classifier, PICTURE, labels=NAMES)
    with pytest.raises(ModelError, match="does not run on a 3x224x224 input"):
        camcli.explain(nn.Linear(3, 4), PICTURE)


def test_what_takes_a_module_says_so(classifier: camcli.Classifier) -> None:
    inputs = torch.rand(1, 3, 32, 32)
    for call in (
        lambda: camcli.heatmaps(classifier, inputs),  # type: ignore[arg-type]
        lambda: camcli.activations(classifier, inputs),  # type: ignore[arg-type]
        lambda: camcli.packed(classifier).__enter__(),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match=r"not a Classifier: give its \.module"):
            call()


def test_a_classifier_says_what_it_is_on_a_line(classifier: camcli.Classifier) -> None:
    assert repr(classifier) == "<Classifier Staged, 5 classes, 3x32x32, on cpu>"


@pytest.fixture
def classifier() -> camcli.Classifier:
    return camcli.load_model(Staged(), preprocessing=VIEW, img_size=32)


def test_the_class_has_one_name_and_an_older_one(classifier: camcli.Classifier) -> None:
    module, inputs = classifier.module, torch.rand(1, 3, 32, 32)
    by_name = camcli.heatmaps(module, inputs, target_category=3)
    assert torch.equal(by_name, camcli.heatmaps(module, inputs, targets=3))  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="targets and target_category are the same"):
        camcli.heatmaps(module, inputs, target_category=3, targets=3)  # type: ignore[call-arg]
    for word in ("target_category", "targets"):
        (e,) = camcli.explain(classifier, PICTURE, **{word: 3})
        assert e.category == 3
    categories = [
        e.category for e in camcli.explain(classifier, PICTURE, targets=torch.tensor([1, 4]))
    ]  # type: ignore[call-arg]
    assert categories == [1, 4]


def test_a_model_of_transformers_goes_with_its_processor() -> None:
    transformers = pytest.importorskip("transformers")
    module = build_tiny(
        CLASSIFIERS["vit"], id2label=dict(enumerate(["a cat", "a dog", "an owl", "an elk"]))
    )
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    (e,) = camcli.explain(module, PICTURE, preprocessing=processor)
    inputs = processor(images=Image.fromarray(PICTURE), return_tensors="pt")["pixel_values"]
    (expected,) = camcli.heatmaps(module, inputs, target_category=e.category)
    assert e.label in ("a cat", "a dog", "an owl", "an elk")
    np.testing.assert_allclose(e.heatmap, expected.numpy(), rtol=1e-4, atol=1e-6)
