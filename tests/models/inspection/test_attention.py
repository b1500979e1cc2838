"""Which models' attention is read, where, among which tokens, and that they are left as found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import camcli
from camcli.engine.batch_context import BatchContext
from camcli.engine.evidence.attention import find_attentions
from camcli.engine.targets import FixedCategories
from camcli.errors import MethodError
from camcli.models.inspection.attention import (
    AttentionLayout,
    capture_attention,
    measure_attentions,
)
from camcli.models.inspection.layout import Layout
from tests.networks import noise

Build = Callable[[], nn.Module]
NAMES = ("rollout", "genericattention", "gradattention", "legrad")

model = partial(partial, timm.create_model, num_classes=5)
VIT = {"img_size": 64, "depth": 2, "embed_dim": 48}
HEADS = {**VIT, "num_heads": 3}
P14 = {**HEADS, "img_size": 56}
TV_VIT = {"image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 2}
PATCHES = tuple(range(1, 17))
FIRST = (0,)


def torchvision_vit() -> nn.Module:
    vit = torchvision.models.VisionTransformer(hidden_dim=16, mlp_dim=32, num_classes=5, **TV_VIT)
    nn.init.normal_(vit.heads.head.weight)  # zeros, as it is built
    return vit


def plain(prefix: int = 1) -> Layout:
    return Layout("tokens", (4, 4), prefix)


# how to build it, the input's side, blocks, layout of the tokens, and those the score is read off
READ: dict[str, tuple[Build, int, int, Layout, tuple[int, ...]]] = {
    "vit": (model("vit_tiny_patch16_224", **VIT), 64, 2, plain(), FIRST),
    "average": (
        model("vit_tiny_patch16_224", global_pool="avg", **VIT),
        64,
        2,
        plain(),
        PATCHES,
    ),
    "attention pooling": (
        model("vit_tiny_patch16_224", global_pool="map", **VIT),
        64,
        2,
        plain(),
        PATCHES,
    ),
    "no class token": (
        model("vit_tiny_patch16_224", global_pool="avg", class_token=False, **VIT),
        64,
        2,
        plain(0),
        tuple(range(16)),
    ),
    "distilled": (model("deit_tiny_distilled_patch16_224", **VIT), 64, 2, plain(2), (0, 1)),
    "deit3": (model("deit3_small_patch16_224", **VIT), 64, 2, plain(), FIRST),
    "registers": (model("vit_small_patch14_reg4_dinov2", **P14), 56, 2, plain(5), FIRST),
    "flexivit": (model("flexivit_small", **VIT), 64, 2, plain(), FIRST),
    "relpos": (model("vit_relpos_small_patch16_224", **VIT), 64, 2, plain(0), tuple(range(16))),
    "side by side": (model("vit_small_patch16_18x2_224", **VIT), 64, 2, plain(), FIRST),
    "own block": (
        model("vit_pwee_patch16_reg1_gap_256", **HEADS),
        64,
        2,
        plain(1),
        PATCHES,
    ),
    "beit": (model("beit_base_patch16_224", **HEADS), 64, 2, plain(), PATCHES),
    "eva": (model("eva02_tiny_patch14_224", **P14), 56, 2, plain(), PATCHES),
    "naflex": (
        model("naflexvit_base_patch16_gap", **{**HEADS, "img_size": None}),
        64,
        2,
        plain(4),
        tuple(range(4, 20)),
    ),
    "cait": (model("cait_xxs24_224", **VIT), 64, 4, plain(), FIRST),
    # two blocks without a class token, and one with it
    "convit": (
        model("convit_tiny", img_size=64, depth=3, local_up_to_layer=2),
        64,
        3,
        plain(),
        FIRST,
    ),
    "torchvision": (torchvision_vit, 64, 2, plain(), FIRST),
}


@pytest.fixture(autouse=True)
def fix_seed() -> None:
    torch.manual_seed(0)


def build(name: str) -> tuple[nn.Module, Tensor]:
    build, side, *_ = READ[name]
    return build().eval(), noise(2, 3, (side, side))


@pytest.mark.parametrize("name", READ)
def test_where_attention_is_found(name: str) -> None:
    build, side, blocks, layout, readers = READ[name]
    actual = measure_attentions(build(), (3, side, side))
    assert (len(actual.blocks), actual.layout, actual.readers) == (blocks, layout, readers)
    assert actual.tokens == 16 + layout.prefix


def test_the_blocks_and_their_sites_are_named() -> None:
    names = ("vit", "cait", "side by side", "torchvision")
    actual = {name: measure_attentions(build(name)[0], (3, 64, 64)).blocks[0] for name in names}
    assert (actual["vit"].name, actual["vit"].sites) == ("blocks.0", ("blocks.0.attn.attn_drop",))
    assert actual["cait"].sites == ("blocks.0.attn.proj_w",)
    assert actual["side by side"].name == "blocks.0"
    assert len(actual["side by side"].sites) == 2
    layer = "encoder.layers.encoder_layer_0"
    assert (actual["torchvision"].name, *actual["torchvision"].sites) == (
        layer,
        f"{layer}.self_attention",
    )


def make_context(module: nn.Module, inputs: Tensor, *, graph: bool) -> BatchContext:
    layers = camcli.activations(module, inputs)
    targets = FixedCategories(torch.tensor([[1], [3]]))
    return BatchContext(module, inputs, list(layers), targets, graph=graph)


@contextmanager
def softmaxes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Notes what is softmaxed in whatever way a model spells it."""
    seen: list[Tensor] = []

    def note(softmax: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def note(*args: Any, **options: Any) -> Tensor:
            seen.append(softmax(*args, **options))
            return seen[-1]

        return note

    def unfuse(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "softmax", note(torch.Tensor.softmax))
        patched.setattr(torch.nn.functional, "scaled_dot_product_attention", unfuse)
        yield seen


@pytest.mark.parametrize("name", [name for name in READ if name != "convit"])
def test_what_is_read_is_what_was_softmaxed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = build(name)
    for part in module.modules():
        if getattr(part, "fused_attn", False):
            part.fused_attn = False
    actual = make_context(module, inputs, graph=False).get("attention")
    with softmaxes(monkeypatch) as seen:
        module(inputs)  # without a gradient, torch's own attention would not come past them
    if name == "side by side":
        seen = [torch.cat(pair, 1) for pair in zip(seen[::2], seen[1::2], strict=True)]
    for attention, plain in zip(actual, seen[: len(actual)], strict=True):
        n, m = attention.shape[-1], plain.shape[-1]
        rows = slice(0, 1) if plain.shape[-2] == 1 else slice(n - m, n)
        torch.testing.assert_close(attention[..., rows, n - m :], plain.detach())
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", READ)
def test_the_logits_are_those_of_the_fused_model(name: str, graph: bool) -> None:
    module, inputs = build(name)
    with torch.no_grad():
        expected = module(inputs)
    actual = (
        make_context(module, inputs, graph=graph).get("attention_pass").recording.logits.detach()
    )
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", READ)
def test_gradients_are_those_by_small_changes_of_the_attention(name: str) -> None:
    module, inputs = build(name)
    module, inputs = module.double(), inputs.double()
    context = make_context(module, inputs, graph=True)
    gradients, actual = (
        context.get("attention_gradients"),
        measure_attentions(module, inputs.shape[1:]),
    )
    step, (b, head) = 1e-3, (1, 0)
    for block, by in zip(actual.blocks, gradients, strict=True):
        key = actual.tokens - 2

        def change_attention(_: str, attention: Tensor, sign: float) -> Tensor:
            other = attention.clone()
            other[b, head, 0, -2] += sign * step
            return other

        scores = []
        for sign in (1.0, -1.0):
            with (
                capture_attention(module, block.sites[:1], partial(change_attention, sign=sign)),
                torch.no_grad(),
            ):
                scores.append(module(inputs)[b, 3])
        first = (
            0 if by.shape[-1] == _width(block, context) else actual.tokens - _width(block, context)
        )
        expected = float(scores[0] - scores[1]) / (2 * step)
        torch.testing.assert_close(float(by[b, head, first, key]), expected, rtol=1e-3, atol=1e-9)


def _width(block: Any, context: BatchContext) -> int:
    """The number of a block's keys, or all for a class token, which stands first anyway."""
    attention_pass = context.get("attention_pass")
    (site, *_) = attention_pass.maps[attention_pass.attentions.blocks.index(block)]
    return attention_pass.attentions.tokens if site.shape[-2] == 1 else site.shape[-1]


@pytest.mark.parametrize("name", READ)
def test_batch_equals_single_and_the_class_moves_the_map(name: str) -> None:
    module, inputs = build(name)
    together = camcli.heatmaps(module, inputs, NAMES, targets=[[0, 3], [2, 1]])
    for row, targets in enumerate([[0, 3], [2, 1]]):
        alone = camcli.heatmaps(module, inputs[row : row + 1], NAMES, targets=[targets])
        for method, maps in together.items():
            assert maps.shape == (2, 2, 4, 4)
            spread = maps.std()
            assert spread > 0
            assert (maps[row] - alone[method][0]).abs().max() / spread < 1e-2
            moved = float((maps[row, 0] - maps[row, 1]).abs().max() / spread)
            assert (moved > 5e-2) is (method != "rollout")


def _state(module: nn.Module) -> list[Any]:
    parts = [
        (
            part.training,
            vars(part).get("fused_attn"),
            len(part._forward_hooks),
            len(part._forward_pre_hooks),
        )
        for part in module.modules()
    ]
    parameters = [(p.requires_grad, p.grad) for p in module.parameters()]
    return [parts, parameters, torch.backends.mha.get_fastpath_enabled(), torch.get_rng_state()]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ["vit", "cait", "torchvision"])
def test_the_model_is_left_as_found(name: str, fails: bool) -> None:
    module, inputs = build(name)
    module.train()
    next(part for part in module.modules() if isinstance(part, nn.Dropout)).eval()
    before = _state(module)
    context = make_context(module, inputs, graph=True)
    if fails:
        find_attentions(module, (3, 64, 64))
        with module.register_forward_hook(lambda *_: 1 / 0), pytest.raises(ZeroDivisionError):
            context.get("attention_pass")
    else:
        context.get("block_gradients")
    after = _state(module)
    assert before[:3] == after[:3]
    assert torch.equal(before[3], after[3])
    assert torch.is_grad_enabled()


def test_nothing_below_the_first_attention_is_recorded() -> None:
    module, inputs = build("vit")
    context = make_context(module, inputs, graph=True)
    seen: dict[str, bool] = {}
    recorded = {"patch_embed": False, "blocks.0.attn.qkv": False, "blocks.0": True, "norm": True}

    def see(name: str, _: nn.Module, __: Any, output: Tensor) -> None:
        seen[name] = output.requires_grad

    for name in recorded:
        module.get_submodule(name).register_forward_hook(partial(see, name))
    recording = context.get("attention_pass").recording
    assert seen == recorded
    assert recording.logits.requires_grad
    assert not any(p.requires_grad and p.grad is not None for p in module.parameters())


SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 2), "num_heads": (2, 4)}
REFUSED: list[tuple[Build, int, str]] = [
    (model("test_resnet"), 64, "This ResNet shows no softmaxed attention"),
    (partial(torchvision.models.resnet18, num_classes=5), 64, "shows no softmaxed attention"),
    (model("swin_tiny_patch4_window7_224", **SWIN), 64, "SwinTransformer .*looks through windows"),
    (model("xcit_nano_12_p16_224", img_size=64, depth=2), 64, "Xcit .*among channels"),
    (model("pvt_v2_b0", depths=(1, 1, 1, 1)), 64, "among channels or skips tokens"),
    (model("vit_dwee_patch16_reg1_gap_256", **HEADS), 64, "one of two whose difference counts"),
    (model("vit_dpwee_patch16_reg1_gap_256", **HEADS), 64, "one of two whose difference counts"),
    (model("tnt_s_patch16_224", img_size=64, depth=1), 64, "TNT .*looks through windows"),
    (model("pit_ti_224", img_size=64), 64, "among 50, then 17, then 5 tokens"),
]
if timm.is_model("test_coatnet"):  # not in the lowest version
    REFUSED.append((model("test_coatnet"), 160, "among .*, then .* tokens"))


@pytest.mark.parametrize(("build", "side", "message"), REFUSED)
def test_models_whose_attention_cannot_be_read_say_why(
    build: Build, side: int, message: str
) -> None:
    with pytest.raises(MethodError, match=message) as raised:
        camcli.heatmaps(build(), noise(1, 3, (side, side)), "rollout")
    assert "Try --method gradcam" in str(raised.value)


class TorchBlock(nn.Module):
    """A block around torch's own attention, called with keywords."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(16, 2, batch_first=batch_first, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.own(query=x, key=x, value=x)[0]


class Torch(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 16, 16)
        self.blocks = nn.Sequential(TorchBlock(batch_first), TorchBlock(batch_first))
        self.fc = nn.Linear(16, 5)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = self.blocks(x) if self.batch_first else self.blocks(x.transpose(0, 1)).transpose(0, 1)
        return self.fc(x.mean(1))


def test_torchs_own_attention_in_other_ways() -> None:
    inputs = noise(2, 3, (64, 64))
    module = Torch(batch_first=True).eval()
    assert camcli.heatmaps(module, inputs, NAMES)["legrad"].std() > 0
    actual = make_context(module, inputs, graph=True).get("attention_pass").recording.logits
    torch.testing.assert_close(actual.detach(), module(inputs).detach())
    first = Torch(batch_first=False).eval()
    first.load_state_dict(module.state_dict())
    for method, maps in camcli.heatmaps(module, inputs, NAMES).items():
        torch.testing.assert_close(camcli.heatmaps(first, inputs, method), maps)


def test_attention_used_twice_is_refused() -> None:
    module = Torch(batch_first=True)
    module.blocks[1] = module.blocks[0]
    with pytest.raises(MethodError, match="each block called once"):
        measure_attentions(module, (3, 64, 64))


def test_it_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def count(*args: Any) -> AttentionLayout:
        calls.append(1)
        return measure_attentions(*args)

    monkeypatch.setattr("camcli.engine.evidence.attention.measure_attentions", count)
    module, inputs = build("vit")
    for _ in range(3):
        camcli.heatmaps(module, inputs, "rollout")
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["cait", "convit"])
def test_blocks_are_read_off_the_last_of_their_kind(name: str) -> None:
    # where a class token joins, what lies behind some blocks is not the head alone
    module, inputs = build(name)
    context = make_context(module, inputs, graph=True)
    readings = context.get("block_readouts")
    assert [len(reading.blocks) for reading in readings] == ([2, 2] if name == "cait" else [2, 1])
    logits = context.get("logits")
    for reading in readings:
        torch.testing.assert_close(reading.logits.detach()[-2:], logits, rtol=1e-4, atol=1e-6)
    outputs = context.get("attention_pass").recording.outputs
    first = outputs["blocks.0"].detach()
    last = module.get_submodule("blocks.1")
    with torch.no_grad(), last.register_forward_hook(lambda *_: first):
        expected = module(inputs)
    torch.testing.assert_close(readings[0].logits.detach()[:2], expected, rtol=1e-4, atol=1e-6)
