"""Methods of gradients and activations beside those of grad-cam and scikit-learn, in float64."""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.methods.activation import KERNELS, kpcacam
from camcli.methods.factorization import factorise
from camcli.methods.postprocessing import enlarge, normalise
from tests.peers import test_grad_cam as grad_cam

pytestmark = grad_cam.pytestmark

CASES = grad_cam.CASES
# FEM is none of them: theirs weights the activations, and no binary maps
GRAD_CAM = {
    "gradcamelementwise": "GradCAMElementWise",
    "segeigencam": "SegEigenCAM",
    "shapleycam": "ShapleyCAM",
    "kpcacam": "KPCA_CAM",
}
# grad-cam's ShapleyCAM multiplies what the layer puts out, whose second axis it takes for channels;
# and no derivative of torch's hardsigmoid can be differentiated, which MobileNetV3 is made of
SHAPLEY = [n for n, case in CASES.items() if case.reshape is None and "mobilenet" not in n]

_normalised_alike = grad_cam._normalise_alike
_inputs_in_float32, _model_in_float32 = grad_cam._inputs, grad_cam._model


@cache
def _model(name: str) -> nn.Module:
    return deepcopy(_model_in_float32(name)).double()


@cache
def _inputs(size: int) -> Tensor:
    return _inputs_in_float32(size).double()


@pytest.fixture(autouse=True)
def _in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, rounding decides here and there which side of a ReLU a value is on."""
    monkeypatch.setattr(grad_cam, "_model", _model)
    monkeypatch.setattr(grad_cam, "_inputs", _inputs)
    for method, theirs in GRAD_CAM.items():
        monkeypatch.setitem(grad_cam.GRAD_CAM, method, theirs)


def _difference_but_for_sign(method: str, case: grad_cam.Case, layer: str, **options: Any) -> float:
    theirs = grad_cam._peer(case, method, (layer,), **options)
    ours = camcli.heatmaps(
        _model(case.name),
        _inputs(case.size),
        method,
        target_layers=layer,
        targets=grad_cam.TARGETS,
        **options,
    )
    both = [normalise(enlarge(normalise(s * ours), (case.size, case.size))) for s in (1, -1)]
    return max(
        min(grad_cam._difference(one[i], map_) for one in both) for i, map_ in enumerate(theirs)
    )


PAIRS = grad_cam.pair_with_layers(["gradcamelementwise", "segeigencam"])


@pytest.mark.parametrize(("method", "name", "count"), PAIRS)
def test_our_map_is_that_of_grad_cam(method: str, name: str, count: int) -> None:
    case = CASES[name]
    layers = case.layers[-count:]
    theirs = grad_cam._peer(case, method, layers)
    assert grad_cam._difference(grad_cam._ours(case, method, layers), theirs) < 1e-4


# one layer at a time: its second one asks for a graph that the first has freed
@pytest.mark.parametrize("at", [0, 1], ids=["earlier layer", "last layer"])
@pytest.mark.parametrize("name", SHAPLEY)
def test_shapleycam_is_that_of_grad_cam(name: str, at: int) -> None:
    case = CASES[name]
    layers = (case.layers[at],)
    theirs = grad_cam._peer(case, "shapleycam", layers)
    assert grad_cam._difference(grad_cam._ours(case, "shapleycam", layers), theirs) < 1e-4


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["gradcamelementwise", "shapleycam"])
def test_eigen_smooth_agrees_up_to_sign(method: str, name: str) -> None:
    if method == "shapleycam" and name not in SHAPLEY:
        pytest.skip("grad-cam's ShapleyCAM cannot be asked")
    case = CASES[name]
    assert _difference_but_for_sign(method, case, case.layers[-1], eigen_smooth=True) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_kpcacam_is_that_of_grad_cam_but_for_its_sign(name: str) -> None:
    case = CASES[name]
    assert _difference_but_for_sign("kpcacam", case, case.layers[-1]) < 1e-4


@pytest.mark.parametrize("gamma", [0.0, 0.3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_is_that_of_scikit_learn(kernel: str, gamma: float) -> None:
    from sklearn.decomposition import KernelPCA

    maps = torch.randn(3, 20, 5, 6, generator=torch.Generator().manual_seed(0))
    for row, actual in zip(maps, kpcacam(maps, kernel=kernel, gamma=gamma), strict=True):
        places = row.flatten(1).T.double().numpy()
        peer = KernelPCA(1, kernel=kernel, gamma=gamma or None)
        expected = peer.fit_transform(places - places.mean(0))[:, 0]
        apart = [np.abs(sign * actual.flatten().numpy() - expected).max() for sign in (1, -1)]
        assert min(apart) < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("c", "size", "k"), [(12, 7, 3), (64, 7, 5), (512, 11, 5)])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_factorization_leaves_no_more_than_that_of_scikit_learn(
    kind: str, c: int, size: int, k: int
) -> None:
    from sklearn.decomposition import NMF

    draw = torch.Generator().manual_seed(1)
    maps = torch.rand(2, c, size, size, generator=draw)
    if kind == "sparse":
        maps = (maps - 0.7).relu()
    parts, strengths = (actual.double() for actual in factorise(maps, k))
    left = (maps - torch.einsum("bkhw,kc->bchw", strengths, parts)).norm()
    places = maps.double().permute(0, 2, 3, 1).reshape(-1, c).numpy()
    for options in ({"init": "nndsvda"}, {"init": "random", "random_state": 0}):
        peer = NMF(k, max_iter=2000, **options).fit(places)
        assert float(left) < 1.005 * peer.reconstruction_err_
