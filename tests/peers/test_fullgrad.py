"""Our FullGrad beside grad-cam's, on the networks whose biases grad-cam finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import vgg

import camcli
import camcli.engine.api
from camcli.engine.batch_context import BatchContext
from camcli.engine.targets import FixedCategories
from camcli.methods.postprocessing import enlarge, min_max, normalise

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # the peer's own, and those of what it imports
]

TARGETS = [2, 5]
BUILT = {
    "torchvision resnet18": lambda: torchvision.models.resnet18(num_classes=9),
    "timm resnet18": lambda: timm.create_model("resnet18", num_classes=9),
    # without its two large linear layers
    "torchvision vgg11_bn": lambda: nn.Sequential(
        vgg.make_layers(vgg.cfgs["A"], batch_norm=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 9),
    ),
    # their activations are BatchNormAct2d, which grad-cam passes over
    "timm densenet121": lambda: timm.create_model("densenet121", num_classes=9),
}
SOUND = [name for name in BUILT if name != "timm densenet121"]


@cache
def model(name: str) -> nn.Module:
    torch.manual_seed(0)
    module = BUILT[name]()
    with torch.no_grad():
        for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if key.endswith(("bias", "running_mean")):
                tensor.normal_(std=0.1)
    return module.eval().double()


def inputs() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    blobs = enlarge(torch.randn(2, 3, 9, 9, generator=draw), (96, 96)).double()
    # blobs alone are constant at their edges, where max pooling meets ties that rounding decides
    return blobs + 0.05 * torch.randn(blobs.shape, generator=draw).double()


@contextmanager
def peer(name: str) -> Iterator[Any]:
    from pytorch_grad_cam import FullGrad

    # NCHW weights: their numpy code needs contiguous memory
    actual = FullGrad(model(name).to(memory_format=torch.contiguous_format), [])
    try:
        yield actual
    finally:
        actual.activations_and_grads.release()


def their_map(name: str) -> np.ndarray:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with peer(name) as actual:
        return actual(inputs(), targets=[ClassifierOutputTarget(t) for t in TARGETS])


def difference(name: str) -> float:
    ours = normalise(camcli.heatmaps(model(name), inputs(), "fullgrad", targets=TARGETS))
    return float((ours - normalise(torch.from_numpy(their_map(name)))).abs().max())


def stretch_together(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    terms = torch.from_numpy(maps)
    flat = min_max(terms.flatten(2)) if terms.ndim == 4 else terms
    return enlarge(flat.view_as(terms), size[::-1]).numpy()


@pytest.mark.parametrize("name", SOUND)
def test_our_map_is_that_of_grad_cam_where_layers_are_stretched_alike(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = "pytorch_grad_cam.fullgrad_cam.scale_accross_batch_and_channels"
    # a channel by itself, as grad-cam has it
    assert difference(name) > 0.01
    monkeypatch.setattr(scale, stretch_together)
    assert difference(name) < 1e-4


@pytest.mark.parametrize("name", BUILT)
def test_the_biases_are_those_of_grad_cam_and_those_it_misses(name: str) -> None:
    context = BatchContext(
        model(name), inputs(), (), FixedCategories(torch.zeros(2, 1).long()), graph=True
    )
    constants = [bias.constant for bias in context.get("full_pass")(0).biases]
    # [c 1 1] and [1 c h w]; those of linear layers [c] have no place
    ours = [c.squeeze(0)[:, 0, 0] for c in constants if c.ndim > 1]
    with peer(name) as actual:
        theirs = [torch.from_numpy(bias) for bias in actual.bias_data]
    if name in SOUND:
        torch.testing.assert_close(ours, theirs)
    else:
        assert (len(ours), theirs) == (121, [])
