"""Attention methods: worked out by hand, against slow replicas, and on a ViT recomputed by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import camcli
from camcli.engine.targets import logit, probability
from camcli.errors import MethodError, UsageError
from camcli.registry import METHODS, depends_on_category, depends_on_layer
from tests.networks import Attending, Staged, noise

NAMES = ("rollout", "genericattention", "gradattention", "legrad")
CLASS_TOKEN = torch.tensor([1.0, 0.0])
SECOND = torch.tensor([[1]])

# a class token and one patch, two heads
A = torch.tensor([[[0.8, 0.2], [0.4, 0.6]], [[0.6, 0.4], [0.0, 1.0]]])[None]
G = torch.tensor([[[1.0, 2.0], [3.0, -1.0]], [[0.5, -4.0], [1.0, 1.0]]])[None]


def test_rollout_by_hand() -> None:
    # heads' mean: [.7 .3] [.2 .8]; with the identity: [.85 .15] [.1 .9]
    one = METHODS["rollout"].function([A], CLASS_TOKEN, SECOND)
    torch.testing.assert_close(one, torch.tensor([[[0.15]]]))
    two = METHODS["rollout"].function([A, A], CLASS_TOKEN, SECOND)
    torch.testing.assert_close(two, torch.tensor([[[0.85 * 0.15 + 0.15 * 0.9]]]))
    # heads' minimum: [.6 .2] [0 .6], whose rows with the identity sum to 1.8
    least = METHODS["rollout"].function([A], CLASS_TOKEN, SECOND, head_fusion="min")
    torch.testing.assert_close(least, torch.tensor([[[0.2 / 1.8]]]))
    # the weakest of the four means is .2, the next .3
    for ratio, expected in ((0.25, 0.15), (0.5, 0.0)):
        kept = METHODS["rollout"].function([A], CLASS_TOKEN, SECOND, discard_ratio=ratio)
        torch.testing.assert_close(kept, torch.tensor([[[expected]]]))


def test_relevance_by_hand() -> None:
    # relu(G * A): [.8 .4] [1.2 0] and [.3 0] [0 1]; their mean: [.55 .2] [.6 .5]
    last = METHODS["gradattention"].function([G, A], [A, G], CLASS_TOKEN, SECOND)
    torch.testing.assert_close(last, torch.tensor([[[0.2]]]))
    # (I + R) (I + R) = [1.55 .2] [.6 1.5] squared
    actual = METHODS["genericattention"].function([A, A], [G, G], CLASS_TOKEN, SECOND)
    torch.testing.assert_close(actual, torch.tensor([[[1.55 * 0.2 + 0.2 * 1.5]]]))


def test_legrad_by_hand() -> None:
    # the positive gradients by the patch are 2 and 0, 0 and 1, over two heads and two queries
    actual = METHODS["legrad"].function([G, 3 * G], SECOND)
    torch.testing.assert_close(actual, torch.tensor([[[(3 / 4 + 9 / 4) / 2]]]))


def test_small_relevance_is_not_lost_beside_the_identity() -> None:
    both = torch.tensor([0.5, 0.5])
    actual = METHODS["genericattention"].function([A], [1e-12 * G], both, SECOND)
    torch.testing.assert_close(actual, torch.tensor([[[0.5e-12 * (0.2 + 0.5)]]]))


# slow replicas from the papers: the whole matrix, picture by picture, in float64


def slow_rollout(attention: list[Tensor], fuse: Callable[[Tensor], Tensor]) -> Tensor:
    actual = torch.eye(attention[0].shape[-1], dtype=torch.double)
    for heads in attention:
        mixed = 0.5 * fuse(heads) + 0.5 * torch.eye(len(actual))
        actual = (mixed / mixed.sum(1, keepdim=True)) @ actual
    return actual


def slow_generic(attention: list[Tensor], gradients: list[Tensor]) -> Tensor:
    actual = torch.eye(attention[0].shape[-1], dtype=torch.double)
    for heads, by in zip(attention, gradients, strict=True):
        actual = actual + (by * heads).clamp(min=0).mean(0) @ actual
    return actual


FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda heads: heads.mean(0),
    "max": lambda heads: heads.max(0).values,
    "min": lambda heads: heads.min(0).values,
}
PLACES = torch.tensor([[1, 2], [3, 4]])


def _draw() -> tuple[list[Tensor], list[Tensor], Tensor]:
    draw = torch.Generator().manual_seed(0)
    attention = [torch.randn(2, 3, 5, 5, generator=draw).mul(3).softmax(-1) for _ in range(4)]
    gradients = [torch.randn(2, 3, 5, 5, generator=draw) for _ in range(4)]
    return attention, gradients, torch.rand(5, generator=draw)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_rollout_is_the_product_of_the_whole_matrices(fusion: str) -> None:
    attention, _, readout = _draw()
    actual = METHODS["rollout"].function(attention, readout, PLACES, head_fusion=fusion)
    for row in range(2):
        slow = slow_rollout([a[row].double() for a in attention], FUSIONS[fusion])
        expected = (readout.double() @ slow)[PLACES].float()
        torch.testing.assert_close(actual[row], expected)


def test_generic_attention_is_the_sum_over_the_whole_matrices() -> None:
    attention, gradients, readout = _draw()
    actual = METHODS["genericattention"].function(attention, gradients, readout, PLACES)
    for row in range(2):
        slow = slow_generic(
            [a[row].double() for a in attention], [g[row].double() for g in gradients]
        )
        expected = (readout.double() @ (slow - torch.eye(5)))[PLACES].float()
        torch.testing.assert_close(actual[row], expected)


def test_the_weakest_are_discarded_in_each_picture_by_itself() -> None:
    attention, _, readout = _draw()
    options = {"discard_ratio": 0.6}
    together = METHODS["rollout"].function(attention, readout, PLACES, **options)
    for row in range(2):
        part = [a[row : row + 1] for a in attention]
        alone = METHODS["rollout"].function(part, readout, PLACES, **options)
        torch.testing.assert_close(together[row : row + 1], alone)
    plain = METHODS["rollout"].function(attention, readout, PLACES)
    assert not torch.allclose(together, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_fusion": "median"}, "head_fusion is mean, max, min, not 'median'"),
        ({"discard_ratio": 1.0}, "discard_ratio is from 0 to below 1"),
        ({"discard_ratio": -0.1}, "discard_ratio is from 0 to below 1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        METHODS["rollout"].function([A], CLASS_TOKEN, SECOND, **options)


# a ViT from timm, recomputed by hand

VIT = {"img_size": 64, "depth": 3, "embed_dim": 48, "num_classes": 7}
INPUTS = noise(2, 3, (64, 64))
TARGETS = [2, 5]


def vit(name: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, **VIT, **options).eval()
    with torch.no_grad():
        for block in model.blocks:
            # uniform attention would hide much
            block.attn.qkv.weight.mul_(8)
    return model


def _by_hand(model: Any, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Returns each block's attention and tokens, in one graph."""
    attention, tokens = [], []
    x = model._pos_embed(model.patch_embed(inputs))
    for block in model.blocks:
        own = block.attn
        b, n, c = x.shape
        parts = own.qkv(block.norm1(x)).reshape(b, n, 3, own.num_heads, c // own.num_heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        attention.append((q @ k.mT / (c // own.num_heads) ** 0.5).softmax(-1))
        x = x + own.proj((attention[-1] @ v).transpose(1, 2).reshape(b, n, c))
        x = x + block.mlp(block.norm2(x))
        tokens.append(x)
    return attention, tokens


def _head(model: Any, tokens: Tensor) -> Tensor:
    actual: Tensor = model.forward_head(model.norm(tokens))
    return actual


def _grid(rows: Tensor, model: Any) -> Tensor:
    return rows[:, model.num_prefix_tokens :].reshape(-1, 4, 4).detach()


# how a model's score is read off its tokens, and how its tokens' rows become one
READ: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "class token": (vit, lambda r: r[:, 0]),
    "average": (partial(vit, global_pool="avg"), lambda r: r[:, 1:].mean(1)),
    "no class token": (
        partial(vit, class_token=False, global_pool="avg"),
        lambda r: r.mean(1),
    ),
    "registers": (partial(vit, reg_tokens=3), lambda r: r[:, 0]),
    "distilled": (
        partial(vit, "deit_tiny_distilled_patch16_224"),
        lambda r: r[:, :2].mean(1),
    ),
}


@pytest.mark.parametrize("name", READ)
def test_maps_of_a_vit_recomputed_by_hand(name: str) -> None:
    build, read = READ[name]
    model = build()
    attention, tokens = _by_hand(model, INPUTS)

    def scores(logits: Tensor) -> Tensor:
        return logits[torch.arange(2), TARGETS].sum()

    gradients = torch.autograd.grad(scores(_head(model, tokens[-1])), attention, retain_graph=True)
    own = [
        torch.autograd.grad(scores(_head(model, z)), a, retain_graph=True)[0]
        for z, a in zip(tokens, attention, strict=True)
    ]
    n = tokens[-1].shape[1]
    rollout, relevance = torch.eye(n).expand(2, n, n), torch.eye(n).expand(2, n, n)
    for a, g in zip(attention, gradients, strict=True):
        rollout = (0.5 * a.mean(1) + 0.5 * torch.eye(n)) @ rollout
        last = (g * a).relu().mean(1)
        relevance = relevance + last @ relevance
    expectation = {
        "rollout": read(rollout),
        "genericattention": read(relevance - torch.eye(n)),
        "gradattention": read(last),
        "legrad": sum(g.relu().mean((1, 2)) for g in own) / len(own),
    }
    heatmap = camcli.heatmaps(model, INPUTS, NAMES, targets=TARGETS)
    for method, maps in heatmap.items():
        expected = _grid(expectation[method], model)
        spread = expected.std()  # gradients of random weights are small
        torch.testing.assert_close(maps / spread, expected / spread, rtol=0, atol=5e-4)


@pytest.mark.parametrize("name", READ)
def test_maps_follow_the_class_but_for_rollout(name: str) -> None:
    heatmap = camcli.heatmaps(READ[name][0](), INPUTS, NAMES, targets=[[0, 1], [0, 1]])
    for method, maps in heatmap.items():
        spread = maps.std()
        moved = not torch.allclose(maps[:, 0] / spread, maps[:, 1] / spread, atol=1e-3)
        assert moved is depends_on_category(method) is (method != "rollout")


def test_scores_follow_the_target() -> None:
    model = vit()
    options = {"targets": TARGETS}
    plain = camcli.heatmaps(model, INPUTS, NAMES, **options)
    other = camcli.heatmaps(model, INPUTS, NAMES, target=probability, **options)
    nothing = camcli.heatmaps(model, INPUTS, NAMES, target=lambda x, c: 0 * logit(x, c), **options)
    for name in NAMES[1:]:
        assert not torch.allclose(plain[name], other[name])
        assert not nothing[name].any()
    torch.testing.assert_close(plain["rollout"], other["rollout"])


def test_there_is_one_map_whatever_the_target_layers() -> None:
    model = vit()
    assert not any(map(depends_on_layer, NAMES))
    expected = camcli.heatmaps(model, INPUTS, NAMES, targets=TARGETS)
    layers = ["blocks.0", "blocks.1.norm1"]
    heatmap = camcli.heatmaps(
        model, INPUTS, NAMES, targets=TARGETS, target_layers=layers, layer_fusion="none"
    )
    for name in NAMES:
        for layer in layers:
            torch.testing.assert_close(heatmap[name][layer], expected[name])


def test_rollout_needs_no_classifier_and_no_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit()
    expected = camcli.heatmaps(model, INPUTS, "rollout")
    model.reset_classifier(0)
    # what the score is read off is looked for once, and that takes one
    torch.testing.assert_close(camcli.heatmaps(model, INPUTS, "rollout"), expected)
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("a backward pass"))
    torch.testing.assert_close(camcli.heatmaps(model, INPUTS, "rollout"), expected)


def test_a_constant_head_gives_zeros() -> None:
    model = vit()
    nn.init.zeros_(model.head.weight)
    heatmap = camcli.heatmaps(model, INPUTS, NAMES, targets=TARGETS)
    assert heatmap["rollout"].std() > 0
    for name in NAMES[1:]:
        assert torch.equal(heatmap[name], torch.zeros(2, 4, 4))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_attention_is_refused(name: str) -> None:
    with pytest.raises(MethodError, match=r"This Staged shows no softmaxed attention.*gradcam"):
        camcli.heatmaps(Staged(), noise(), name)


def test_attention_that_gives_no_gradient_says_so() -> None:
    class Closed(Attending):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(MethodError, match=r"No gradient reaches .*--method rollout"):
        camcli.heatmaps(Closed(), noise(), "genericattention", target_layers="last")
    assert camcli.heatmaps(Closed(), noise(), "rollout", target_layers="last").std() > 0
