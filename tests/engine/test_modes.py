"""Every public function gives the same in each of torch's modes, for every kind of targets."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from inspect import isfunction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import camcli
import camcli.methods
from camcli.registry import METHODS
from tests.networks import Staged, network_for, noise

Mode = Callable[[], AbstractContextManager[Any]]
MODES: Mapping[str, Mode] = {
    "plain": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "enable_grad": torch.enable_grad,
    "enable_grad in inference_mode": lambda: _nested(torch.inference_mode, torch.enable_grad),
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
}
# made in the mode itself, for tensors of inference mode are of another kind
TARGETS: Mapping[str, Callable[[], Any]] = {
    "none": lambda: None,
    "int": lambda: 3,
    "numpy int": lambda: np.int64(3),
    "scalar tensor": lambda: torch.tensor(3),
    "list": lambda: [1, 2],
    "numpy ints": lambda: [np.int64(1), np.int32(2)],
    "list of lists": lambda: [[1, 4], [2, 0]],
    "array": lambda: np.array([1, 2]),
    "array of rows": lambda: np.array([[1, 4], [2, 0]], np.int32),
    "tensor": lambda: torch.tensor([1, 2]),
    "int32 tensor": lambda: torch.tensor([[1, 4], [2, 0]], dtype=torch.int32),
    "range": lambda: range(1, 3),
}


class _nested(AbstractContextManager[None]):  # noqa: N801
    def __init__(self, *modes: Mode) -> None:
        self.modes = [mode() for mode in modes]

    def __enter__(self) -> None:
        for mode in self.modes:
            mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*error)


def assert_same(actual: Tensor, expected: Tensor, mode: str) -> None:
    assert not actual.is_inference()
    assert not actual.requires_grad
    assert actual.dtype == torch.float32
    # bf16 has eight bits
    tolerance = 0.05 if mode == "autocast" else 1e-5
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=tolerance * float(expected.abs().max())
    )
    # what is given back can be worked on
    actual.clone().requires_grad_().sum().backward()


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("mode", MODES)
def test_heatmaps_in_every_mode_with_every_kind_of_targets(mode: str, targets: str) -> None:
    with MODES[mode]():
        # in inference mode, the model's tensors and the inputs are inference tensors
        heatmap = _explain_targets(targets)
    assert_same(heatmap, _explain_targets_plainly(targets), mode)


def _explain_targets(targets: str) -> Tensor:
    given: Any = TARGETS[targets]()
    return camcli.heatmaps(Staged(), noise(), targets=given, target_layers="last")


@cache
def _explain_targets_plainly(targets: str) -> Tensor:
    return _explain_targets(targets)


@pytest.mark.parametrize("mode", [m for m in MODES if m not in ("plain", "autocast")])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_in_every_mode_with_targets(name: str, mode: str) -> None:
    with MODES[mode]():
        actual = _explain_by(name, torch.tensor([[1, 4], [2, 0]]))
    assert_same(actual, _explain_plainly_by(name), mode)


def _explain_by(name: str, targets: Any) -> Tensor:
    options = {"masks": 8} if name == "rise" else {}
    model = network_for(name)
    return camcli.heatmaps(model, noise(), name, targets=targets, target_layers="last", set=options)


@cache
def _explain_plainly_by(name: str) -> Tensor:
    return _explain_by(name, [[1, 4], [2, 0]])


ASKED: Mapping[str, Mapping[str, Any]] = {
    "contrast": {"contrast": [0, 4]},
    "similar": {"target": "contrast"},
    "probability": {"target": "probability"},
    "function": {"target": lambda logits, c: logits.gather(1, c[:, None])[:, 0] - logits[:, 0]},
    "augmented": {"aug_smooth": True},
    "noise": {"noise_smooth": 2},
    "fused": {"target_layers": ["middle", "last"]},
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_every_question_in_every_mode(mode: str, asked: str) -> None:
    options = {"target_layers": "last", "targets": [1, 2], **ASKED[asked]}
    expected = camcli.heatmaps(Staged(), noise(), **options)
    with MODES[mode]():
        heatmap = camcli.heatmaps(Staged(), noise(), **options)
    assert_same(heatmap, expected, mode)


@cache
def _load_once() -> camcli.Classifier:
    return camcli.load_model(device="cpu", img_size=64)


def _copy_loaded() -> camcli.Classifier:
    """Returns a model of which nothing is measured yet; loading takes ten times as long."""
    classifier = _load_once()
    with torch.inference_mode(False):
        return replace(classifier, module=deepcopy(classifier.module))


def _explain(classifier: camcli.Classifier, **options: Any) -> Tensor:
    pictures = [noise(1, size=(64, 64), seed=seed)[0].sigmoid() for seed in (1, 2)]
    explanations = camcli.explain(classifier, pictures, **options)
    return torch.stack([torch.from_numpy(e.heatmap) for e in explanations])


def _run_packed() -> Tensor:
    model = Staged()
    with camcli.packed(model):
        for _ in range(3):
            maps = camcli.heatmaps(model, noise(), targets=[1, 2], target_layers="last")
    return maps


def _explain_locked() -> Tensor:
    model = Staged()
    with camcli.lock_model(model):
        actual: Tensor = camcli.heatmaps(model, noise(), target_layers="last")
    return actual


def _activations() -> Tensor:
    return camcli.activations(Staged(), noise(), ["last"])["last"]


def _overlay() -> Tensor:
    picture, heatmap = noise(1)[0].sigmoid(), noise(1, 1)[0, 0]
    return torch.from_numpy(camcli.overlay(picture, heatmap)).float()


class _Writer:
    """Takes what TensorBoard's would."""

    def add_image(self, _tag: str, pixels: Any, _step: None, *, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.pixels = pixels


def _log() -> Tensor:
    writer = _Writer()
    picture = noise(1, size=(64, 64))[0].sigmoid()
    camcli.log_overlays(writer, camcli.explain(_copy_loaded(), picture))
    # bf16 moves the edges of colours
    return torch.from_numpy(writer.pixels).float().mean((0, 1))


def _load() -> Tensor:
    module: nn.Module = camcli.load_model(device="cpu", img_size=64).module
    # weights that were made in inference mode could never be trained
    assert not any(tensor.is_inference() for tensor in module.state_dict().values())
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def _compare() -> Tensor:
    comparison = camcli.compare_with(_copy_loaded(), noise(1)[0].sigmoid()).reading.comparison
    assert comparison is not None
    return comparison.references


PUBLIC: Mapping[str, tuple[str, Callable[[], Tensor]]] = {
    "activations": ("activations", _activations),
    "best": ("explain", lambda: _explain(camcli.load_model(device="cpu", img_size=64))),
    "top": ("explain", lambda: _explain(_copy_loaded(), top_k=2)),
    "named": ("explain", lambda: _explain(_copy_loaded(), target_category=["3", "5"])),
    "compared": (
        "explain",
        lambda: _explain(_copy_loaded(), target_category="3", contrast="5"),
    ),
    "altered": (
        "explain",
        lambda: _explain(_copy_loaded(), method="occlusion", target_category="3"),
    ),
    "compare_with": ("compare_with", _compare),
    "heatmaps": ("heatmaps", lambda: camcli.heatmaps(Staged(), noise(), target_layers="last")),
    "load_model": ("load_model", _load),
    "lock_model": ("lock_model", _explain_locked),
    "log_overlays": ("log_overlays", _log),
    "overlay": ("overlay", _overlay),
    "packed": ("packed", _run_packed),
}


def test_nothing_public_is_left_out() -> None:
    functions = {name for name in camcli.__all__ if isfunction(getattr(camcli, name))}
    # words need a model that is not installed with camviz: tests/models/words
    assert {name for name, _ in PUBLIC.values()} == functions - {"prompt"}


@cache
def _call_plainly(use: str) -> Tensor:
    return PUBLIC[use][1]()


@pytest.mark.parametrize("mode", [m for m in MODES if m != "plain"])
@pytest.mark.parametrize("use", PUBLIC)
def test_every_public_function_in_every_mode(use: str, mode: str) -> None:
    name, call = PUBLIC[use]
    expected = _call_plainly(use)
    with MODES[mode]():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        actual = call()
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    if name == "heatmaps":
        assert_same(actual, expected, mode)
    tolerance = (0.1 if mode == "autocast" else 1e-5) * float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
