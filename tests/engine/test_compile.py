"""Compiled blocks give the maps of the model as it was written, and hooks are heard."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torch.nn import functional as F

import camcli
from camcli.engine.answer_request import answer_request
from camcli.engine.compile import CompiledBlock, compile_model
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.layer_selection import find_default_layer
from camcli.engine.targets import TopKCategories
from camcli.errors import MethodError, ModelError
from camcli.models.acceleration.compile_targets import find_blocks
from camcli.models.acceleration.fused_attention import can_fuse
from camcli.records import Precision
from tests.checkout import ROOT

SHAPE = (3, 64, 64)
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler"
)


def _model(name: str) -> nn.Module:
    if name == "swin":
        return _swin()
    return camcli.load_model(f"timm/{name}", pretrained=False, device="cpu").module


def _swin() -> nn.Module:
    """Two stages of two blocks each, with attention that timm can fuse, but does not."""
    shape = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "num_classes": 5}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SwinTransformer(img_size=64, patch_size=4, window_size=4, **shape).eval()


def _inputs(count: int = 4) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def _request(model: nn.Module, method: str) -> ExplainRequest:
    return ExplainRequest((method,), (find_default_layer(model, SHAPE).name,), chunk=4)


def _map(model: nn.Module, inputs: Tensor, request: ExplainRequest) -> Tensor:
    (maps,) = answer_request(model, inputs, TopKCategories(), request).maps.values()
    return next(iter(maps.values()))


def _stand_ins(model: nn.Module) -> list[CompiledBlock]:
    actual = (vars(layer).get("forward") for layer in model.modules())
    return [forward for forward in actual if isinstance(forward, CompiledBlock)]


@pytest.fixture
def count_compilations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Puts in place of the compiler one that only notes the shapes that it was run on."""
    seen: list[tuple[int, ...]] = []
    codes: list[CodeType] = []

    def compile_(forward: Any, *, dynamic: bool) -> Callable[..., Any]:
        assert not dynamic
        # of blocks that share theirs torch would look through what it compiled for all of them
        assert all(forward.__code__ is not other for other in codes)
        codes.append(forward.__code__)

        def run(*args: Any, **kwargs: Any) -> Any:
            seen.append(tuple(args[0].shape))
            return forward(*args, **kwargs)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    return seen


def test_blocks_are_what_repeats_and_never_what_holds_a_target() -> None:
    resnet = _model("test_resnet")
    # the layer itself is one, for its hook lies outside
    assert {"layer1", "layer2", "layer3", "layer4"} <= set(find_blocks(resnet, ["layer4"]))
    assert not {"layer2", "layer2.0"} & set(find_blocks(resnet, ["layer2.0.conv1"]))
    vit = list(find_blocks(_model("test_vit"), ["blocks.3.norm1"]))
    assert {"blocks.0", "blocks.1", "blocks.2", "blocks.3.attn", "blocks.3.mlp"} <= set(vit)
    assert "blocks.3" not in vit


def test_only_the_prefix_in_the_known_mode_runs_compiled(
    count_compilations: list[tuple[int, ...]],
) -> None:
    model = _model("test_vit")
    request = _request(model, "gradcam")
    expected = _map(model, _inputs(), request)
    with compile_model(model, request, SHAPE, 4) as count:
        assert count == len(_stand_ins(model)) > 3
        count_compilations.clear()
        assert torch.equal(_map(model, _inputs(), request), expected)
        in_front = len(count_compilations)
        # what lies behind the layer is recorded, and a look inside is heard
        assert 3 <= in_front < count
        calls = []
        with model.get_submodule("blocks.0.attn").register_forward_hook(
            lambda *_: calls.append(None)
        ):
            assert torch.equal(_map(model, _inputs(), request), expected)
        assert len(count_compilations) == 2 * in_front - 1 and len(calls) == 1
    assert not _stand_ins(model)


def test_weights_are_prepacked_when_blocks_are_compiled_and_then_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch._inductor.config as inductor

    packed = []

    def compile_(forward: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        return lambda *args: packed.append(inductor.freezing) or forward(*args)

    monkeypatch.setattr(torch, "compile", compile_)
    model = _model("test_resnet")
    request = _request(model, "gradcam")
    with compile_model(model, request, SHAPE, 4) as count:
        assert packed == [True] * count
        _map(model, _inputs(), request)
    assert packed[count:] and not any(packed[count:])


def test_a_block_that_answers_otherwise_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _model("test_resnet")
    request = _request(model, "gradcam")
    expected = _map(model, _inputs(), request)
    wrong = lambda forward, **_: lambda *args: forward(*args) * 1.01  # noqa: E731
    monkeypatch.setattr(torch, "compile", wrong)
    with compile_model(model, request, SHAPE, 4) as count:
        assert count == 0
        assert torch.equal(_map(model, _inputs(), request), expected)


def test_a_compiler_that_fails_says_so_before_anything_is_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compile_(*_: Any, **__: Any) -> Callable[..., Any]:
        def run(*_: Any, **__: Any) -> Any:
            raise RuntimeError("no compiler\nmany more lines")

        return run

    model = _model("test_resnet")
    monkeypatch.setattr(torch, "compile", compile_)
    with (
        pytest.raises(ModelError, match=r"^--compile failed at '.*': no compiler\. It needs"),
        compile_model(model, _request(model, "gradcam"), SHAPE, 4),
    ):
        pytest.fail("ran")
    assert not _stand_ins(model)


def test_altered_copies_are_compiled_for_their_chunk(
    count_compilations: list[tuple[int, ...]],
) -> None:
    model = _model("test_resnet")
    with compile_model(model, _request(model, "gradcam"), SHAPE, 2):
        assert {shape[0] for shape in count_compilations} == {2}
    with compile_model(model, _request(model, "scorecam"), SHAPE, 2):
        assert {shape[0] for shape in count_compilations} == {2, 4}


@pytest.fixture
def attend(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes how many windows attend, each time that it is fused."""
    noted: list[int] = []
    plain = F.scaled_dot_product_attention

    def note(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        noted.append(len(query))
        return plain(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", note)
    return noted


def test_attention_is_fused_in_what_is_compiled_and_not_where_somebody_looks(
    count_compilations: list[tuple[int, ...]], attend: list[int]
) -> None:
    model = _swin()
    layers = [layer for layer in model.modules() if can_fuse(layer)]
    request = ExplainRequest(("gradcam",), ("layers.1.blocks.0.norm2",))
    with compile_model(model, request, SHAPE, 4):
        assert count_compilations and all(map(can_fuse, layers))
        attend.clear()
        _map(model, _inputs(), request)
        # 16 windows a picture at the first stage; behind the target layer a graph is recorded
        assert attend[:2] == [4 * 16] * 2 and len(attend) < len(layers) == 4
        fused = len(attend)
        attend.clear()
        with layers[0].softmax.register_forward_hook(lambda *_: None):
            _map(model, _inputs(), request)
        assert len(attend) == fused - 1
    assert all(map(can_fuse, layers))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_attention_is_not_fused_in_half_precision(
    precision: Precision, count_compilations: list[tuple[int, ...]], attend: list[int]
) -> None:
    model = _swin()
    request = ExplainRequest(("gradcam",), ("layers.1.blocks.0.norm2",), precision=precision)
    with compile_model(model, request, SHAPE, 4):
        _map(model, _inputs(), request)
    assert count_compilations and not attend


def _strict(set_stance: Callable[[str], Any]) -> Callable[[str], Any]:
    strict = {"eager_on_recompile": "fail_on_recompile"}
    return lambda stance: set_stance(strict.get(stance, stance))


@pytest.fixture
def _fresh() -> Iterator[None]:
    yield
    torch.compiler.reset()


# each kind of network with gradients, each kind of pass (none backward, the head's input, from a
# layer on) with and without tokens: compiling takes seconds
COMPILED = (
    *((name, "gradcam") for name in (
        "test_resnet", "test_vit", "test_convnext", "test_efficientnet", "swin"
    )),
    *(("test_resnet", method) for method in ("cam", "eigencam", "ablationcam")),
    *(("test_vit", method) for method in ("eigencam", "ablationcam")),
)  # fmt: skip


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")  # torch's own, of old names inside
@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize(("name", "method"), COMPILED)
def test_maps_are_those_of_the_model_as_it_was(
    name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(name)
    request = _request(model, method)
    try:
        expected = _map(model, _inputs(), request)
    except MethodError:
        pytest.skip(f"{method} is not defined for {name}")
    fewer = _map(model, _inputs(3), request)
    with compile_model(model, request, SHAPE, 4) as count:
        assert count
        for block in _stand_ins(model):
            assert block.run == block.run_compiled
        scale = expected.abs().max()
        with monkeypatch.context() as patch:
            # where the compiled form does not fit, the plain one is taken in silence: as on
            # ablations, which come in another number and order of memory
            if method != "ablationcam":
                patch.setattr(torch.compiler, "set_stance", _strict(torch.compiler.set_stance))
            actual = _map(model, _inputs(), request)
        torch.testing.assert_close(actual / scale, expected / scale, rtol=0, atol=1e-4)
        # another size runs as it was written, without being compiled
        assert torch.allclose(_map(model, _inputs(3), request), fewer, atol=1e-4 * float(scale))
    assert torch.equal(_map(model, _inputs(), request), expected)


class _Breaking(nn.Module):
    """A block in which the compiler's graph breaks, and whose weights change little."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inside: Tensor = self.conv(x)
        torch._dynamo.graph_break()
        # less than the tolerance: to hold outputs beside each other would not tell whose they are
        return x + 5e-4 * self.conv(inside)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")  # torch's own, of old names inside
@pytest.mark.usefixtures("_fresh")
def test_each_block_keeps_its_own_weights_where_a_graph_breaks() -> None:
    torch.manual_seed(0)
    stem, last = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3)
    blocks_ = nn.Sequential(*[_Breaking() for _ in range(12)])
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    model = nn.Sequential(stem, blocks_, last, head).eval()
    request = ExplainRequest(("gradcam",), ("2",))
    expected = _map(model, _inputs(), request)
    with compile_model(model, request, SHAPE, 4) as count:
        assert count == 12
        actual = _map(model, _inputs(), request)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.slow
def test_without_a_compiler_nothing_is_written(tmp_path: Path) -> None:
    nowhere = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    out = tmp_path / "out"
    arguments = ["demo_images/coffee.png", "--compile", "--save-path", str(out), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "camcli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **nowhere},
    )
    assert done.returncode == 2
    assert "--compile failed at" in done.stderr and "leave --compile out" in done.stderr
    assert not list(out.glob("*"))
