"""Deep feature factorization beside scikit-learn's and grad-cam's."""

import numpy as np
import pytest
from torch import Tensor

import camcli
from camcli.methods.factorization import factorise
from tests.peers import test_grad_cam as grad_cam

pytestmark = [*grad_cam.pytestmark, pytest.mark.usefixtures("all_steps")]


def _rows(name: str) -> tuple[Tensor, np.ndarray]:
    """Positive activations of a picture, [1 c h w] and [places c]."""
    case = grad_cam.CASES[name]
    layer = case.layers[0]
    # the largest: of few places not enough is known for one factorization to be the best
    inputs = grad_cam._inputs(224)[:1]
    maps = camcli.activations(grad_cam._model(name), inputs, layer)[layer].relu()
    return maps, maps[0].flatten(1).T.double().numpy()


def _difference(rows: np.ndarray, rebuilt: np.ndarray) -> float:
    return float(np.linalg.norm(rows - rebuilt) / np.linalg.norm(rows))


def _ours(maps: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Strengths [places k], parts [k c]."""
    parts, strengths = factorise(maps, k)
    return strengths[0].flatten(1).T.double().numpy(), parts.double().numpy()


# the small Swin takes no picture that is large enough
CASES = [name for name in grad_cam.CASES if "swin" not in name]


# eight concepts of the small VGG are not one factorization alone
PAIRS = [(name, k) for name in CASES for k in (1, 5, 8) if (name, k) != ("torchvision/vgg11_bn", 8)]


@pytest.mark.parametrize(("name", "k"), PAIRS)
def test_our_concepts_are_scikit_learns(name: str, k: int) -> None:
    from sklearn.decomposition import NMF

    maps, rows = _rows(name)
    model = NMF(k, init="nndsvd", random_state=0, max_iter=5000, tol=1e-9)
    theirs, directions = model.fit_transform(rows), model.components_
    # it leaves open which of the two factors is long
    length = np.linalg.norm(directions, axis=1)
    theirs, directions = theirs * length, directions / length[:, None]
    order = np.argsort(-np.linalg.norm(theirs, axis=0))
    strengths, parts = _ours(maps, k)
    assert np.abs(parts - directions[order]).max() < 1e-3
    assert np.abs(strengths - theirs[:, order]).max() < 3e-3 * theirs.max()
    assert np.abs((strengths - theirs[:, order]).sum(1)).max() < 1e-4 * theirs.sum(1).max()


@pytest.mark.parametrize("name", ["embedded", "timm/resnet18", "torchvision/vgg11_bn"])
def test_we_come_as_near_as_grad_cam(name: str) -> None:
    from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff

    maps, rows = _rows(name)
    # it shifts each channel to its minimum, which for these is nearly always zero, and starts from
    # random numbers, which may lead elsewhere
    concepts, strengths = dff(maps.numpy().copy(), 5)
    least = maps.amin((0, 2, 3))[:, None].numpy()
    theirs = ((concepts - least) @ strengths[0].reshape(5, -1) + least).T
    assert _difference(rows, np.matmul(*_ours(maps, 5))) < 1.01 * _difference(rows, theirs)


def test_one_concept_is_grad_cams() -> None:
    from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff

    maps = _rows("embedded")[0]
    shifted = maps - maps.amin((0, 2, 3), keepdim=True)
    strengths, (part,) = _ours(shifted, 1)
    concept, theirs = dff(shifted.numpy().copy(), 1)
    np.testing.assert_allclose(part, concept[:, 0] / np.linalg.norm(concept), atol=1e-3)
    np.testing.assert_allclose(strengths[:, 0], theirs.ravel() * np.linalg.norm(concept), rtol=0.01)
