"""Grad-CAM and guided backprop beside those of Captum and grad-cam, in float64."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

import camcli
from camcli.engine.answer_request import answer_request
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.targets import parse_targets
from camcli.registry import depends_on_layer
from tests.peers import test_grad_cam as grad_cam

pytestmark = grad_cam.pytestmark

CASES = grad_cam.CASES
# it takes the mean over all axes but the first two
MAPS = [name for name, case in CASES.items() if case.reshape is None]
# both know modules of the class ReLU alone, and these models have no other rectifier
OF_RELU = ("timm/resnet18", "torchvision/vgg11_bn", "timm/densenet121")


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def _pixels(case: grad_cam.Case, method: str, layer: str = "") -> Tensor:
    request = ExplainRequest((method,), (layer,) if layer else ())
    model, inputs = grad_cam._model(case.name), grad_cam._inputs(case.size)
    actual = answer_request(
        model, inputs, parse_targets(grad_cam.TARGETS, len(inputs)), request
    ).details
    return actual[method, layer if depends_on_layer(method) else "", "pixels"][:, 0]


@pytest.mark.parametrize("at", [0, 1], ids=["earlier layer", "last layer"])
@pytest.mark.parametrize("name", MAPS)
def test_gradcam_is_captums(name: str, at: int) -> None:
    from captum.attr import LayerGradCam

    case, model = CASES[name], grad_cam._model(name).eval()
    layer, inputs = case.layers[at], grad_cam._inputs(case.size)
    peer = LayerGradCam(model, model.get_submodule(layer))
    theirs = peer.attribute(inputs.clone(), grad_cam.TARGETS)[:, 0].detach()
    ours = camcli.heatmaps(model, inputs, target_layers=layer, targets=grad_cam.TARGETS)
    assert _difference(ours, theirs) < 1e-4


@pytest.mark.parametrize("name", OF_RELU)
def test_guided_backprop_is_captums(name: str) -> None:
    from captum.attr import GuidedBackprop

    case, model = CASES[name], deepcopy(grad_cam._model(name)).eval()
    inputs = grad_cam._inputs(case.size)
    theirs = GuidedBackprop(model).attribute(inputs.clone(), grad_cam.TARGETS).detach()
    assert _difference(_pixels(case, "guidedbackprop"), theirs) < 1e-4
    leaf = inputs.clone().requires_grad_()
    picked = model(leaf)[torch.arange(2), grad_cam.TARGETS]
    (plain,) = torch.autograd.grad(picked.sum(), leaf)
    assert _difference(plain, theirs) > 0.1


@pytest.mark.parametrize("at", [0, 1], ids=["earlier layer", "last layer"])
@pytest.mark.parametrize("name", OF_RELU)
def test_guided_gradcam_is_captums(name: str, at: int) -> None:
    from captum.attr import GuidedGradCam

    case, model = CASES[name], deepcopy(grad_cam._model(name)).eval()
    layer, inputs = case.layers[at], grad_cam._inputs(case.size)
    peer = GuidedGradCam(model, model.get_submodule(layer))
    theirs = peer.attribute(inputs.clone(), grad_cam.TARGETS, interpolate_mode="bilinear").detach()
    assert _difference(_pixels(case, "guidedgradcam", layer), theirs) < 1e-4


@pytest.mark.parametrize("name", OF_RELU)
def test_guided_backprop_is_grad_cams(name: str) -> None:
    from pytorch_grad_cam import GuidedBackpropReLUModel

    # theirs puts new modules in place of the model's own, and looks at the first picture
    case = CASES[name]
    peer = GuidedBackpropReLUModel(deepcopy(grad_cam._model(name)), torch.device("cpu"))
    ours = _pixels(case, "guidedbackprop")
    for row, target in enumerate(grad_cam.TARGETS):
        theirs = peer(grad_cam._inputs(case.size)[row : row + 1].clone(), target)
        assert _difference(ours[row], torch.from_numpy(np.moveaxis(theirs, -1, 0).copy())) < 1e-4
