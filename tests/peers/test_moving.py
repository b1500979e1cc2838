"""The handbook's page on moving over: its examples in two tools give the same maps."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch
import torchvision

from camcli.methods.postprocessing import enlarge, normalise
from tests.checkout import ROOT
from tests.networks import noise

pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
BaseCAM: Any = pytest.importorskip("pytorch_grad_cam.base_cam").BaseCAM

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

PAGE = ROOT / "camcli" / "docs" / "moving.md"
EXAMPLES = re.findall(r"```python\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("peer", ["pytorch_grad_cam", "torchcam"])
def test_the_same_example_in_both_tools_gives_the_same_map(peer: str) -> None:
    place = next(place for place, text in enumerate(EXAMPLES) if peer in text)
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    inputs = noise(1, 3, (224, 224))
    names: dict[str, Any] = {"model": model, "inputs": inputs}
    for example in EXAMPLES[place : place + 2]:
        exec(example, names)
    theirs, ours = torch.as_tensor(names["theirs"]), names["ours"]
    if theirs.shape[1:] != ours.shape[1:]:
        ours = enlarge(normalise(ours), tuple(theirs.shape[1:]))
    torch.testing.assert_close(normalise(theirs), normalise(ours), rtol=0, atol=1e-3)


# what is no way to explain a classifier, or only serves what the page names
INNER = {"ActivationsAndGradients", "BaseCAM"}


def list_names_of_grad_cam() -> set[str]:
    """Lists what a user of grad-cam may have imported."""
    from pytorch_grad_cam.metrics import arcc, cam_mult_image, road
    from pytorch_grad_cam.utils import model_targets

    classes = {
        name
        for module in (pytorch_grad_cam, model_targets, arcc)
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__.startswith("pytorch_grad_cam")
    }
    whole = {name for name in vars(road) if name.startswith("ROAD") and "First" not in name}
    whole |= {name for name in vars(road) if name.endswith("FirstAverage")}
    confidence = {name for name in vars(cam_mult_image) if name.endswith("InConfidence")}
    of_call = inspect.signature(BaseCAM.__call__).parameters
    parameters = {*inspect.signature(BaseCAM.__init__).parameters, *of_call}
    known = {"self", "model", "input_tensor", "target_layers"}
    return classes | whole | confidence | (parameters - known)


def list_names_of_torch_cam() -> set[str]:
    from torchcam import methods, metrics
    from torchcam.methods.core import _CAM

    classes = {
        name
        for module in (methods, metrics)
        for name, value in vars(module).items()
        if inspect.isclass(value) and not name.startswith("_")
        if value.__module__.startswith("torchcam")
    }
    numbers = inspect.signature(methods.SSCAM.__init__).parameters
    parameters = {*inspect.signature(_CAM.__init__).parameters, *numbers}
    parameters |= {*inspect.signature(_CAM.__call__).parameters}
    return classes | (parameters - {"self", "model", "kwargs", "scores"})


@pytest.mark.parametrize("peer", ["pytorch-grad-cam", "torch-cam"])
def test_the_table_names_everything_that_a_user_may_have_used(peer: str) -> None:
    listed = {"pytorch-grad-cam": list_names_of_grad_cam, "torch-cam": list_names_of_torch_cam}
    names = listed[peer]() - INNER
    text = PAGE.read_text(encoding="utf-8").partition(f"## From {peer}")[2].partition("\n## ")[0]
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()
    assert len(names) > 15
