"""Our targets beside those of grad-cam and torchcam: the numbers, and the maps of contrasts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.engine.targets import SCORES, ContrastTarget, contrast
from camcli.methods.postprocessing import enlarge, normalise
from camcli.records import TargetName

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # the peers' own, and those of what they import
]

CATEGORIES = [2, 5, 0, 1]
# our name: the name of grad-cam's class
PLAIN: dict[TargetName, str] = {
    "logit": "ClassifierOutputTarget",
    "probability": "ClassifierOutputSoftmaxTarget",
    "rest": "ClassifierOutputReST",
}


def _logits() -> Tensor:
    return torch.randn(4, 7, generator=torch.Generator().manual_seed(0)) * 3


def _theirs(name: str, logits: Tensor, *arguments: Any) -> Tensor:
    from pytorch_grad_cam.utils import model_targets

    target = getattr(model_targets, name)
    made = [target(c, *arguments) for c in CATEGORIES]
    scores = [one(row) for one, row in zip(made, logits, strict=True)]
    return torch.stack([score.reshape(()) for score in scores])


@pytest.mark.parametrize("name", PLAIN)
def test_our_scores_and_their_gradients_are_those_of_grad_cam(name: TargetName) -> None:
    ours, theirs = (_logits().requires_grad_() for _ in range(2))
    mine = SCORES[name](ours, torch.tensor(CATEGORIES))
    peers = _theirs(PLAIN[name], theirs)
    torch.testing.assert_close(mine, peers)
    mine.sum().backward()
    peers.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_sides_of_a_single_logit_are_those_of_grad_cam() -> None:
    from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget

    logits = _logits()[:, :1]
    for side in (0, 1):
        theirs = torch.stack([BinaryClassifierOutputTarget(side)(row) for row in logits])
        ours = SCORES["logit"](logits, torch.tensor([side] * 4))
        torch.testing.assert_close(ours, theirs.flatten())


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_with_one_reference_finer_cam_is_grad_cams(strength: float) -> None:
    ours, theirs = (_logits().requires_grad_() for _ in range(2))
    reference = torch.tensor([[6]]).expand(4, 1)
    mine = contrast(ours, torch.tensor(CATEGORIES), reference, strength=strength)
    peers = _theirs("FinerWeightedTarget", theirs, [6], strength)
    torch.testing.assert_close(mine, peers, rtol=1e-4, atol=1e-5)
    mine.sum().backward()
    peers.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_with_several_grad_cam_weights_them_by_softmax() -> None:
    logits, others = _logits(), [6, 4]
    theirs = _theirs("FinerWeightedTarget", logits, others, 0.6)
    weights = logits.softmax(1)[:, others]
    mean = (logits[:, others] * weights).sum(1) / weights.sum(1)
    own = SCORES["logit"](logits, torch.tensor(CATEGORIES))
    torch.testing.assert_close(theirs, own - 0.6 * mean)
    references = torch.tensor(others).expand(4, 2)
    ours = contrast(logits, torch.tensor(CATEGORIES), references)
    assert ((ours - theirs).abs() > 0.05).all()


SIZE = (96, 96)


def _model(name: str) -> nn.Module:
    classifier = camcli.load_model(name, pretrained=name == "embedded", device="cpu")
    return classifier.module.to(memory_format=torch.contiguous_format)


def _inputs() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return enlarge(torch.randn(2, 3, 9, 9, generator=draw), SIZE)


# and their last layers
MODELS = {"embedded": "features", "timm/resnet18": "layer4"}


@pytest.mark.parametrize("base", ["GradCAM", "LayerCAM"])
@pytest.mark.parametrize("against", [(), (3, 4)], ids=["similar", "given"])
@pytest.mark.parametrize("name", MODELS)
def test_our_contrast_is_torchcams_finer_cam(
    name: str, against: tuple[int, ...], base: str
) -> None:
    from torchcam import methods

    model, inputs = _model(name), _inputs()
    finer = methods.FinerCAM(model, MODELS[name], base_method=getattr(methods, base))
    with finer as extractor:
        scores = model(inputs)
        theirs = extractor(CATEGORIES[:2], scores, list(against) or None, normalized=False)[0]
    ours = camcli.heatmaps(
        model,
        inputs,
        base,
        target_layers=MODELS[name],
        targets=CATEGORIES[:2],
        target="contrast",
        contrast=against,
    )
    assert float((normalise(ours) - normalise(theirs)).abs().max()) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_our_contrast_with_the_nearest_class_is_grad_cams(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytorch_grad_cam import FinerCAM, GradCAM

    def scale_cams(cams: np.ndarray, target_size: tuple[int, int] | None = None) -> np.ndarray:
        maps = normalise(torch.from_numpy(np.asarray(cams)).float())
        return (maps if target_size is None else enlarge(maps, target_size[::-1])).numpy()

    for module in ("base_cam", "utils.image"):
        monkeypatch.setattr(f"pytorch_grad_cam.{module}.scale_cam_image", scale_cams)
    model, inputs, layer = _model(name), _inputs(), MODELS[name]
    with FinerCAM(model, [model.get_submodule(layer)], base_method=GradCAM) as cam:
        theirs = cam(inputs.clone(), alpha=0.6, comparison_categories=[1])
    logits = model(inputs).detach()
    nearest = ContrastTarget().references(logits, logits.argmax(1))[:, 0].tolist()
    for row, other in enumerate(nearest):
        raw = camcli.heatmaps(model, inputs[row : row + 1], target_layers=layer, contrast=other)
        ours = normalise(enlarge(normalise(raw), SIZE))[0]
        assert float((ours - torch.from_numpy(theirs[row])).abs().max()) < 1e-4
