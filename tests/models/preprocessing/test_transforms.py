"""Preprocessing as people have it in Python: what a transform does is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

import camcli
from camcli.errors import ModelError, UsageError
from camcli.media.network_input import make_view
from camcli.media.pictures.read import make_picture
from camcli.models.preprocessing.transforms import read_preprocessing
from camcli.records import Preprocessing
from tests.networks import Staged

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
END = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
TENSOR_END = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
BICUBIC = transforms.InterpolationMode.BICUBIC
TRANSFORMS: dict[str, Any] = {
    "crop": transforms.Compose([transforms.Resize(72), transforms.CenterCrop(64), *END]),
    "bicubic": transforms.Compose(
        [transforms.Resize(70, BICUBIC), transforms.CenterCrop(64), *END]
    ),
    "squash": transforms.Compose([transforms.Resize((48, 64)), *END]),
    "tensors": v2.Compose([v2.ToImage(), v2.Resize(72), v2.CenterCrop(64), *TENSOR_END]),
}


def photo() -> Image.Image:
    """Draws a picture of another shape than the one that transforms are measured on."""
    coarse = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    return Image.fromarray(coarse).resize((263, 181), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_and_its_view_give_the_network_the_same(name: str) -> None:
    view = read_preprocessing(TRANSFORMS[name], None)
    assert view is not None and view.warnings == ()
    seen = make_view(make_picture(photo()), view.preprocessing).inputs
    torch.testing.assert_close(seen, TRANSFORMS[name](photo()), rtol=0, atol=1e-5)


def test_the_transforms_of_published_weights_are_read() -> None:
    view = read_preprocessing(ResNet18_Weights.DEFAULT.transforms(), None)
    assert view is not None
    assert view.preprocessing == Preprocessing((224, 224), (256, 256), resizer="pillow")


def test_a_function_of_a_picture_is_one() -> None:
    def shrink(picture: Image.Image) -> np.ndarray:
        values = np.asarray(picture.resize((32, 32), Image.Resampling.BOX), np.float32) / 255
        return values.transpose(2, 0, 1)

    view = read_preprocessing(shrink, None)
    assert view is not None
    expected = Preprocessing((32, 32), (32, 32), (0, 0, 0), (1, 1, 1), "box", "squash", "pillow")
    assert view.preprocessing == expected


@pytest.mark.parametrize(
    ("given", "size", "error", "why"),
    [
        (transforms.Compose([transforms.RandomCrop(64), *END]), None, ModelError, "each time"),
        (transforms.Resize(64), None, ModelError, "Resize gives a picture and no tensor"),
        (transforms.Compose([transforms.Grayscale(), *END[:1]]), None, ModelError, "no colours"),
        (lambda picture: 3, None, ModelError, "pixel_values"),  # noqa: ARG005
        (TRANSFORMS["squash"], (32, 32), UsageError, "48x64, and img_size is 32x32"),
        (3, None, UsageError, "a dictionary .* not a int"),
    ],
)
def test_what_is_none_is_refused(given: Any, size: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        read_preprocessing(given, size)


def test_the_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with pytest.raises(ModelError):
        read_preprocessing(transforms.Compose([transforms.RandomCrop(64), *END]), None)
    assert torch.rand(1) == expected


def test_load_model_takes_a_transform_a_preprocessing_and_a_dictionary() -> None:
    by_transform = camcli.load_model(Staged(), preprocessing=TRANSFORMS["squash"])
    assert by_transform.preprocessing.mean == MEAN and by_transform.warnings == ()
    same = camcli.load_model(Staged(), preprocessing=by_transform.preprocessing)
    assert same.preprocessing == by_transform.preprocessing
    changed = camcli.load_model(
        Staged(), img_size=64, preprocessing={"mean": MEAN, "std": STD, "fit": "squash"}
    )
    assert changed.preprocessing == Preprocessing((64, 64), (64, 64), MEAN, STD, fit="squash")
    named = camcli.load_model(preprocessing=TRANSFORMS["crop"], device="cpu")
    assert named.preprocessing.size == (64, 64)


def test_a_transform_that_leaves_pictures_their_shape_needs_a_size() -> None:
    classifier = camcli.load_model(Staged(), img_size=32, preprocessing=transforms.Compose([*END]))
    assert classifier.preprocessing.size == (32, 32)
    assert "leaves pictures their shape" in classifier.warnings[0]
