"""Pictures in the place of classes: what makes a picture like another one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import camcli
from camcli.cli.app import main
from camcli.errors import CamvizWarning, ImageError, ModelError, UsageError
from camcli.models.load import Classifier
from camcli.records import Preprocessing
from tests.checkout import ROOT

SIZE = (8, 12)


class PooledNetwork(nn.Module):
    """A convolution, a mean, and a classifier, if it has classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.fc = nn.Linear(5, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        return logits


def classifier_of(module: nn.Module, classes: int) -> Classifier:
    preprocessing = Preprocessing(SIZE, SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    return Classifier(module.eval(), "own", "python", preprocessing, None, "by hand", classes)


def make_pair() -> tuple[Classifier, Classifier]:
    """A model with a classifier and the same one without."""
    torch.manual_seed(0)
    whole, headless = PooledNetwork(4), PooledNetwork(0)
    headless.load_state_dict(whole.state_dict(), strict=False)
    return classifier_of(whole, 4), classifier_of(headless, 0)


def picture(seed: int) -> Image.Image:
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (*SIZE, 3), np.uint8))


def inputs_of(image: Image.Image) -> Tensor:
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25


SCORES = {
    "cosine": lambda e, r: F.cosine_similarity(e, r),
    "l1": lambda e, r: -(e - r).abs().sum(1),
    "l2": lambda e, r: -(e - r).pow(2).sum(1).sqrt(),
}


@pytest.mark.parametrize("likeness", SCORES)
def test_the_map_is_grad_cam_of_the_likeness(likeness: Any) -> None:
    whole, _ = make_pair()
    net, image, reference = whole.module, picture(1), picture(2)
    (explanation,) = camcli.explain(
        camcli.compare_with(whole, reference, likeness), image, target_layers="conv"
    )
    maps = net.conv(inputs_of(image)).detach().requires_grad_()
    embedding = maps.relu().mean((2, 3))
    with torch.no_grad():
        other = net.conv(inputs_of(reference)).relu().mean((2, 3))
    score = SCORES[likeness](embedding, other)
    (gradients,) = torch.autograd.grad(score.sum(), maps)
    expected = (gradients.mean((2, 3), keepdim=True) * maps).sum(1)[0]
    torch.testing.assert_close(torch.from_numpy(explanation.heatmap), expected.detach())
    assert explanation.record.value == pytest.approx(float(score.detach()), abs=1e-5)
    assert explanation.label == "reference 0"


def test_a_classifier_is_compared_by_what_it_is_given() -> None:
    whole, headless = make_pair()
    given = {"target_layers": "conv", "method": ["gradcam", "scorecam", "eigencam"]}
    pairs = zip(
        camcli.explain(camcli.compare_with(whole, [picture(2), picture(3)]), picture(1), **given),
        camcli.explain(
            camcli.compare_with(headless, [picture(2), picture(3)]), picture(1), **given
        ),
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_array_equal(one.heatmap, other.heatmap)
        assert one.record.value == other.record.value
        assert one.label == other.label


def test_a_module_is_loaded_first_and_words_need_more_than_one() -> None:
    whole, _ = make_pair()
    with pytest.warns(CamvizWarning, match="assumed"):
        compared = camcli.compare_with(whole.module, picture(2))
    assert compared.module is whole.module and compared.labels == ("reference 0",)
    with pytest.raises(UsageError, match="prompt takes a Classifier"):
        camcli.prompt(whole.module, "a cat")  # type: ignore[arg-type]


def test_all_references_are_explained_unless_some_are_named() -> None:
    whole, _ = make_pair()
    compared = camcli.compare_with(whole, [picture(i) for i in (2, 3, 4)])
    every = list(camcli.explain(compared, picture(1), target_layers="conv"))
    assert [e.category for e in every] == [0, 1, 2]
    (one,) = camcli.explain(compared, picture(1), target_layers="conv", target_category=1)
    np.testing.assert_allclose(one.heatmap, every[1].heatmap, rtol=1e-4, atol=1e-7)
    (against,) = camcli.explain(
        compared, picture(1), target_layers="conv", target_category=1, target="counterfactual"
    )
    np.testing.assert_allclose(against.heatmap, -one.heatmap, rtol=1e-4, atol=1e-7)


def test_a_batch_equals_single_pictures() -> None:
    whole, _ = make_pair()
    compared = camcli.compare_with(whole, picture(2))
    together = list(camcli.explain(compared, [picture(i) for i in range(4)], target_layers="conv"))
    for i, e in enumerate(together):
        (alone,) = camcli.explain(compared, picture(i), target_layers="conv")
        np.testing.assert_allclose(e.heatmap, alone.heatmap, rtol=1e-4, atol=1e-7)


def test_the_model_is_left_as_it_was() -> None:
    whole, _ = make_pair()
    before = whole.module(inputs_of(picture(1)))
    list(camcli.explain(camcli.compare_with(whole, picture(2)), picture(1), target_layers="conv"))
    assert torch.equal(whole.module(inputs_of(picture(1))), before)
    assert not whole.module.fc._forward_pre_hooks
    assert not whole.module._forward_hooks


def test_compared_again_it_has_the_new_references() -> None:
    whole, _ = make_pair()
    twice = camcli.compare_with(camcli.compare_with(whole, [picture(2)] * 3), picture(1))
    (explanation,) = camcli.explain(twice, picture(1), target_layers="conv")
    assert explanation.record.value == pytest.approx(1, abs=1e-5)
    # of two equal pictures nothing makes them more alike
    assert np.abs(explanation.heatmap).max() < 1e-6


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    whole, _ = make_pair()
    with pytest.raises(UsageError, match="name one or more reference"):
        camcli.compare_with(whole, [])
    with pytest.raises(UsageError, match="cosine, l1, l2, not 'dot'"):
        camcli.compare_with(whole, picture(1), "dot")  # type: ignore[arg-type]
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        camcli.compare_with(whole, tmp_path / "broken.jpg")
    with torch.no_grad():
        whole.module.conv.weight.zero_()
        whole.module.conv.bias.zero_()
    with pytest.raises(ModelError, match="is all zeros"):
        camcli.compare_with(whole, picture(1))
    for option in ({"top_k": 2}, {"threshold": 0.5}, {"contrast": 0}):
        with pytest.raises(UsageError):
            compared = replace(camcli.compare_with(make_pair()[0], picture(1)))
            list(camcli.explain(compared, picture(1), target_layers="conv", **option))


CAT, COFFEE = ROOT / "demo_images" / "chelsea.png", ROOT / "demo_images" / "coffee.png"
BOTH = ROOT / "demo_images" / "cat_and_coffee.jpg"


def test_the_cat_is_like_the_cat_and_the_cup_like_the_coffee(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(BOTH), "--like", str(CAT), "--like", str(COFFEE), "--fit", "squash"]
    where = ["--save-path", str(tmp_path), "--save-map", "npy", "--map-size", "image"]
    assert main([*argv, *where, "--device", "cpu", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["label"] for line in lines] == ["chelsea.png", "coffee.png"]
    cat, coffee = (np.load(next(f for f in line["outputs"] if f.endswith("npy"))) for line in lines)
    assert cat[:, :300].sum() > 0 > cat[:, 300:].sum()
    assert coffee[:, 300:].sum() > 0 > coffee[:, :300].sum()
    assert all(0 < line["value"] < 1 for line in lines)


def test_references_of_one_name_are_told_from_each_other(tmp_path: Path) -> None:
    whole, _ = make_pair()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        picture(1).save(tmp_path / folder / "x.png")
    picture(1).save(tmp_path / "y.png")
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", tmp_path / "y.png"]
    assert camcli.compare_with(whole, paths).labels == (str(paths[0]), str(paths[1]), "y.png")


def test_a_folder_without_pictures_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(BOTH), "--like", str(tmp_path), "--device", "cpu"]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert main([str(BOTH), "--like", str(tmp_path / "none.jpg"), "--device", "cpu"]) == 2
    assert "none.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["gradcam", "genericattention", "legrad", "fullgrad"])
def test_methods_of_transformers_and_of_whole_networks(method: str) -> None:
    classifier = camcli.load_model("timm/test_vit", pretrained=False, num_classes=0, device="cpu")
    compared = camcli.compare_with(classifier, [CAT, COFFEE])
    one, other = camcli.explain(compared, BOTH, method=method)
    assert one.heatmap.std() > 0
    assert not np.allclose(one.heatmap, other.heatmap)
