"""Our maps beside those of grad-cam and torchcam, both normalised alike."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import isqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg

import camcli
from camcli.methods.postprocessing import enlarge, normalise
from camcli.registry import METHODS

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # the peers' own, and those of what they import
]

TARGETS = [2, 5]

# windows, shifted ones and merged patches as in the whole model, in a twelfth of the time
SMALL_SWIN = {"depths": (2, 2, 1, 1), "embed_dim": 48, "window_size": 4}

# our name: their class's name; RandomCAM draws from another generator, CAM is torchcam's below
GRAD_CAM = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
}
SIGN_IS_ARBITRARY = ("eigencam", "eigengradcam")


def tokens(output: Tensor) -> Tensor:
    """Drops the class token of a ViT with a square grid.  [b n c] -> [b c h w]"""
    side = isqrt(output.shape[1] - 1)
    return output[:, 1:].transpose(1, 2).unflatten(2, (side, side))


def nhwc(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Case:
    name: str
    layers: tuple[str, str]
    size: int = 224
    reshape: Callable[[Tensor], Tensor] | None = None


# No layer straight before a LayerNorm: its output does not change with its input's length, so that
# gradient times activation sums to zero and HiResCAM's map is rounding noise.  And none whose
# channels sum to about zero, as a dense block's do: XGrad-CAM divides by that sum.
CASES = {
    case.name: case
    for case in (
        Case("embedded", ("_blocks.14", "features"), 96),
        Case("timm/resnet18", ("layer3", "layer4"), 96),
        Case("torchvision/vgg11_bn", ("features.18", "features"), 96),
        Case("timm/mobilenetv3_small_050", ("blocks.3", "blocks.4"), 128),
        Case("timm/convnext_atto", ("stages.3.blocks.0", "stages"), 96),
        Case("timm/densenet121", ("features.transition3.norm", "features"), 96),
        Case("timm/vit_tiny_patch16_224", ("blocks.9", "blocks.11.norm1"), 224, tokens),
        Case("timm/swin_tiny_patch4_window7_224", ("layers.3.blocks.0", "norm"), 128, nhwc),
    )
}


def pair_with_layers(methods: Sequence[str]) -> list[tuple[str, str, int]]:
    """Pairs each method with each case at one layer; fusing two is the same for all methods.

    So it is compared for the first method in each case, and for the others in the first case.
    """
    first, *others = methods
    return [
        *((method, name, 1) for method in methods for name in CASES),
        *((first, name, 2) for name in CASES),
        *((method, next(iter(CASES)), 2) for method in others),
    ]


@pytest.fixture(autouse=True)
def _normalise_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives grad-cam our normalisation: it adds 1e-7, which decides the maps of random weights."""

    def scale_cams(cams: np.ndarray, target_size: tuple[int, int] | None = None) -> np.ndarray:
        maps = normalise(torch.from_numpy(np.asarray(cams)).float())
        return (maps if target_size is None else enlarge(maps, target_size[::-1])).numpy()

    for module in ("base_cam", "refine_cam", "utils.image"):
        monkeypatch.setattr(f"pytorch_grad_cam.{module}.scale_cam_image", scale_cams)


@cache
def _model(name: str) -> nn.Module:
    # float64: where random weights meet a tie in max pooling, float32 decides it by the machine
    if name == "torchvision/vgg11_bn":
        return _vgg().double()
    options = {"img_size": CASES[name].size, "model_kwargs": SMALL_SWIN} if "swin" in name else {}
    classifier = camcli.load_model(name, pretrained=name == "embedded", device="cpu", **options)
    return classifier.module.double()


def _vgg() -> nn.Module:
    """torchvision's VGG-11 without the two linear layers that hold nearly all of its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = vgg.make_layers(vgg.cfgs["A"], batch_norm=True)
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
        # as torchvision begins: with a plain layer's own numbers activations die out
        for layer in features.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
    return nn.Sequential(OrderedDict(features=features, head=head)).eval()


@cache
def _inputs(size: int) -> Tensor:
    # smooth blobs rather than white noise: every stage has something to say
    draw = torch.Generator().manual_seed(0)
    blobs = enlarge(torch.randn(2, 3, 9, 9, generator=draw), (size, size))
    # and no two pixels alike, between which a max pooling would choose by the memory's order
    return (blobs + 0.01 * torch.randn(blobs.shape, generator=draw)).double()


def _peer(case: Case, method: str, layers: tuple[str, ...], **options: Any) -> np.ndarray:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    # NCHW weights: some of their numpy code needs contiguous memory
    model = _model(case.name).to(memory_format=torch.contiguous_format)
    actual = [model.get_submodule(layer) for layer in layers]
    cam = getattr(pytorch_grad_cam, GRAD_CAM[method])(
        model=model, target_layers=actual, reshape_transform=case.reshape
    )
    try:
        targets = [ClassifierOutputTarget(t) for t in TARGETS]
        return cam(_inputs(case.size).clone(), targets=targets, **options)
    finally:
        cam.activations_and_grads.release()


def _ours(case: Case, method: str, layers: tuple[str, ...], **options: Any) -> Tensor:
    inputs = _inputs(case.size)
    maps = camcli.heatmaps(
        _model(case.name), inputs, method, target_layers=layers, targets=TARGETS, **options
    )
    if len(layers) == 1:
        maps = enlarge(normalise(maps), (case.size, case.size))
    return normalise(maps)


def _difference(ours: Tensor, theirs: np.ndarray) -> float:
    return float((ours - normalise(torch.from_numpy(np.asarray(theirs)).float())).abs().max())


SIGNED = [method for method in GRAD_CAM if method not in SIGN_IS_ARBITRARY]


@pytest.mark.parametrize(("method", "name", "count"), pair_with_layers(SIGNED))
def test_our_map_is_that_of_grad_cam(method: str, name: str, count: int) -> None:
    case = CASES[name]
    layers = case.layers[-count:]
    assert _difference(_ours(case, method, layers), _peer(case, method, layers)) < 1e-4


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", SIGN_IS_ARBITRARY)
def test_principal_components_agree_up_to_sign(method: str, name: str) -> None:
    case = CASES[name]
    layer = case.layers[-1:]
    theirs = _peer(case, method, layer)
    raw = camcli.heatmaps(
        _model(name), _inputs(case.size), method, target_layers=layer, targets=TARGETS
    )
    for row in range(2):
        both = [normalise(enlarge(normalise(s * raw[row]), (case.size,) * 2)) for s in (1, -1)]
        assert min(_difference(one, theirs[row]) for one in both) < 1e-4


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", [m for m in GRAD_CAM if METHODS[m].gives != "map"])
def test_eigen_smooth_agrees_up_to_sign(method: str, name: str) -> None:
    case = CASES[name]
    layer = case.layers[-1:]
    theirs = _peer(case, method, layer, eigen_smooth=True)
    raw = camcli.heatmaps(
        _model(name),
        _inputs(case.size),
        method,
        target_layers=layer,
        targets=TARGETS,
        eigen_smooth=True,
    )
    for row in range(2):
        both = [normalise(enlarge(normalise(s * raw[row]), (case.size,) * 2)) for s in (1, -1)]
        assert min(_difference(one, theirs[row]) for one in both) < 1e-4


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["gradcam++", "layercam"])
def test_refine_is_the_refinecam_of_grad_cam(method: str, name: str) -> None:
    # it hands eigen_smooth on as aug_smooth, so that is not compared
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    case = CASES[name]
    model = _model(name).to(memory_format=torch.contiguous_format)
    cam = pytorch_grad_cam.RefineCAM(
        model,
        [model.get_submodule(layer) for layer in case.layers],
        case.reshape,
        getattr(pytorch_grad_cam, GRAD_CAM[method]),
    )
    try:
        targets = [ClassifierOutputTarget(t) for t in TARGETS]
        theirs = cam(_inputs(case.size).clone(), targets=targets)
    finally:
        for one in cam.base_cam_per_layer:
            one.activations_and_grads.release()
    assert _difference(_ours(case, method, case.layers, layer_fusion="refine"), theirs) < 1e-4


@pytest.mark.parametrize("name", ["torchvision/vgg11_bn", "timm/resnet18"])
def test_product_is_the_refinecam_of_torchcam(name: str) -> None:
    # which does not stretch the maps again once they are enlarged
    from torchcam.methods import LayerCAM, RefineCAM

    case, model = CASES[name], _model(name)
    # at a size where no cell of the grid has its middle on a pixel that is the highest
    inputs, size = _inputs(224), (224, 224)
    with RefineCAM(model, [*case.layers], base_method=LayerCAM) as extractor:
        scores = model(inputs)
        theirs = extractor(TARGETS, scores, normalized=False, target_shape=size)[0]
    actual = {
        how: camcli.heatmaps(
            model,
            inputs,
            "layercam",
            target_layers=case.layers,
            targets=TARGETS,
            layer_fusion=how,
        )
        for how in ("product", "refine")
    }
    assert _difference(normalise(actual["product"]), theirs.numpy()) < 1e-4
    assert _difference(normalise(actual["refine"]), theirs.numpy()) > 1e-3


def test_our_cam_is_that_of_torchcam() -> None:
    from torchcam.methods import CAM

    model = _model("timm/resnet18")
    inputs = _inputs(224)
    with CAM(model, target_layer="layer4", fc_layer="fc") as extractor:
        model(inputs)
        theirs = extractor(TARGETS, normalized=False)[0]
    ours = camcli.heatmaps(model, inputs, "cam", target_layers="layer4", targets=TARGETS)
    assert float((normalise(ours) - normalise(theirs)).abs().max()) < 1e-4
