"""In bfloat16 autocast maps stay what they are, and methods calculate in full precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.engine.batch_context import BatchContext
from camcli.engine.device.precision import choose_precision, is_emulated, use_precision
from camcli.engine.targets import FixedCategories
from camcli.errors import UsageError
from camcli.media.network_input import make_view
from camcli.media.pictures.read import make_picture
from camcli.methods.principal_component import eigen_smooth
from camcli.models.load import Classifier
from camcli.records import Detailed, Precision
from camcli.registry import METHODS, depends_on_layer
from tests.checkout import ROOT

PHOTOS = ("cat_and_coffee.jpg", "chelsea.png")
# the embedded model has no attention to read
ATTENTION = ("rollout", "genericattention", "gradattention", "legrad")
# a pass in bfloat16 is slow on processors that have none
FEW: dict[str, dict[str, Any]] = {
    "scorecam": {"max_channels": 8},
    "sscam": {"samples": 2, "max_channels": 16},
    "iscam": {"samples": 2, "max_channels": 4},
    "ablationcam": {"max_channels": 32},
    "rise": {"masks": 4},
    "occlusion": {"window": 32, "stride": 32},
}


@cache
def _classifier(name: str) -> Classifier:
    trained = name == "embedded"
    # small, for processors without bfloat16 imitate it
    return camcli.load_model(name, pretrained=trained, img_size=112, device="cpu")


@cache
def _photos(name: str) -> Tensor:
    preprocessing = _classifier(name).preprocessing
    pictures = [make_picture(ROOT / "demo_images" / photo) for photo in PHOTOS]
    return torch.stack([make_view(picture, preprocessing).inputs for picture in pictures])


def _model_for(method: str) -> tuple[nn.Module, Tensor]:
    name = "timm/test_vit" if method in ATTENTION else "embedded"
    return _classifier(name).module, _photos(name)


def _bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


# passes by the dozen, in two precisions
SLOW = ("iscam", "occlusion", "scorecam", "smoothgradcam++", "sscam")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in METHODS]
)
def test_maps_in_autocast_are_those_in_float32(name: str) -> None:
    kin = _find_kin(name)
    expected, heatmap = (_make_maps(kin, autocast)[name] for autocast in (False, True))
    assert heatmap.dtype == torch.float32
    assert not torch.equal(heatmap, expected)
    for one, other in zip(expected, heatmap, strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.97


def _find_kin(name: str) -> tuple[str, ...]:
    """Finds the methods that ask for the same evidence: one pass serves them all."""
    if name in FEW or name in SLOW:
        return (name,)
    evidence = METHODS[name].evidence
    return tuple(n for n in METHODS if METHODS[n].evidence == evidence and n not in SLOW)


@cache
def _make_maps(names: tuple[str, ...], autocast: bool) -> dict[str, Tensor]:
    model, photos = _model_for(names[0])
    options = {"targets": [281, 967], "set": FEW.get(names[0])}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        maps: dict[str, Tensor] = camcli.heatmaps(model, photos, list(names), **options)
    return maps


@pytest.mark.parametrize("name", METHODS)
def test_methods_calculate_in_full_precision(name: str) -> None:
    model, photos = _model_for(name)
    method, options = METHODS[name], FEW.get(name, {})
    with torch.no_grad():
        context = make_context(model, photos, name)
        evidence = [context.get(e, *context.layers) for e in method.evidence]
        expected = _map_of(method.function(*evidence, **options))
        with _bfloat16():
            passing = [_in_float32(e) if callable(e) else e for e in evidence]
            actual = _map_of(method.function(*passing, **options))
    scale = expected.abs().max()
    torch.testing.assert_close(actual / scale, expected / scale, rtol=0, atol=1e-5)


def test_principal_components_are_taken_in_full_precision() -> None:
    for shape in ((2, 5, 8, 9), (2, 90, 4, 5)):
        weighted = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        expected = eigen_smooth(weighted)
        with _bfloat16():
            torch.testing.assert_close(eigen_smooth(weighted), expected)


def make_context(model: nn.Module, photos: Tensor, name: str) -> BatchContext:
    layers = ["features"] if depends_on_layer(name) else []
    categories = FixedCategories(torch.tensor([[281], [967]]))
    return BatchContext(model, photos, layers, categories, graph=True)


def _map_of(result: Tensor | Detailed) -> Tensor:
    return result.map if isinstance(result, Detailed) else result


def _in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def note_evidence(*args: Any) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return function(*args)

    return note_evidence


def test_the_option_is_autocast() -> None:
    model, photos = _model_for("gradcam")
    with _bfloat16():
        assert model(photos).dtype == torch.bfloat16
        expected = camcli.heatmaps(model, photos, targets=[281, 967])
    heatmap = camcli.heatmaps(model, photos, targets=[281, 967], precision="bf16")
    assert torch.equal(heatmap, expected)
    plain = camcli.heatmaps(model, photos, targets=[281, 967])
    assert torch.equal(camcli.heatmaps(model, photos, targets=[281, 967], precision="auto"), plain)
    assert not torch.equal(plain, heatmap)
    with pytest.raises(UsageError, match="is one of float32, bf16, fp16, auto, not 'half'"):
        camcli.heatmaps(model, photos, precision="half")


def test_auto_is_bfloat16_where_a_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    for present, meant in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda present=present, **_: present)
        assert (choose_precision("auto", gpu), choose_precision("auto", cpu)) == (meant, "float32")
        assert choose_precision("fp16", gpu) == "fp16"


def test_what_a_processor_has_not_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    has = SimpleNamespace(
        _is_mkldnn_bf16_supported=lambda: True, _is_mkldnn_fp16_supported=lambda: False
    )
    monkeypatch.setattr(torch.ops, "mkldnn", has)
    names: list[Precision] = ["float32", "auto", "bf16", "fp16"]
    assert [is_emulated(name, cpu) for name in names] == [False, False, False, True]
    assert not is_emulated("fp16", gpu)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not is_emulated("fp16", cpu)


@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("auto", True)])
def test_tf32_is_off_on_cuda_in_float32_and_on_elsewhere(
    precision: Precision, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    # the other way round, so that setting and restoring both show
    flags = [SimpleNamespace(allow_tf32=not allowed) for _ in range(2)]
    monkeypatch.setattr(torch.backends.cuda, "matmul", flags[0])
    monkeypatch.setattr(torch.backends, "cudnn", flags[1])
    with pytest.raises(KeyError), use_precision(precision, torch.device("cuda")):
        assert [flag.allow_tf32 for flag in flags] == [allowed, allowed]
        raise KeyError
    assert [flag.allow_tf32 for flag in flags] == [not allowed, not allowed]
    with use_precision(precision, torch.device("cpu")):
        assert [flag.allow_tf32 for flag in flags] == [not allowed, not allowed]


def test_tf32_goes_by_its_newer_name_where_the_caller_uses_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Matmul:
        fp32_precision = "tf32"

        @property
        def allow_tf32(self) -> bool:
            raise RuntimeError("mixed")

    class Cudnn(Matmul):
        conv = Matmul()

    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul := Matmul())
    monkeypatch.setattr(torch.backends, "cudnn", cudnn := Cudnn())
    with use_precision("float32", torch.device("cuda")):
        assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("ieee", "ieee")
    assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("tf32", "tf32")


def test_the_record_tells_the_precision() -> None:
    photo = ROOT / "demo_images" / PHOTOS[0]
    for precision, message in (("bf16", "bf16"), ("auto", "float32")):
        (explanation,) = camcli.explain(_classifier("embedded"), photo, precision=precision)
        assert explanation.record.precision == message
