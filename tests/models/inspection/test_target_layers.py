from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from camcli.errors import LayerError, ModelError, UnknownName
from camcli.models.inspection.layer_lookup import find_layer
from camcli.models.inspection.layout import Layout
from camcli.models.inspection.target_layers import measure_default_layer, survey_layers
from tests.tools.corners import changes, keeps_places, prepare_module

Build = Callable[[], nn.Module]
Shape = tuple[int, int, int]

timm_model = partial(partial, timm.create_model)
tv_model = partial(partial, torchvision.models.get_model, weights=None)

VIT = {"img_size": 64, "depth": 2, "embed_dim": 48}
SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 2), "num_heads": (2, 4)}
TV_VIT = {"image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 2}
TV_SWIN = {"patch_size": [4, 4], "embed_dim": 24, "depths": [1, 2], "num_heads": [2, 4]}
SMALL_VIT = partial(timm_model, "vit_tiny_patch16_224", **VIT)
SMALL_MOBILENET = timm_model("mobilenetv3_small_050")

DEFAULTS: list[tuple[Build, Shape, str, Layout]] = [
    (timm_model("test_resnet"), (3, 160, 160), "layer4", Layout("nchw", (5, 5))),
    (timm_model("test_resnet", in_chans=1), (1, 160, 96), "layer4", Layout("nchw", (5, 3))),
    (timm_model("test_convnext"), (3, 160, 160), "stages", Layout("nchw", (5, 5))),
    (timm_model("test_efficientnet"), (3, 96, 160), "bn2", Layout("nchw", (3, 5))),
    (SMALL_MOBILENET, (3, 224, 224), "blocks", Layout("nchw", (7, 7))),
    (SMALL_MOBILENET, (3, 288, 192), "blocks", Layout("nchw", (9, 6))),
    (
        timm_model("densenet121", block_config=(2, 2)),
        (3, 64, 64),
        "features",
        Layout("nchw", (8, 8)),
    ),
    (timm_model("test_vit"), (3, 160, 160), "blocks.5.norm1", Layout("tokens", (10, 10), 1)),
    (
        timm_model("test_vit", dynamic_img_size=True),
        (3, 160, 96),
        "blocks.5.norm1",
        Layout("tokens", (10, 6), 1),
    ),
    # no classifier: the projections of the last block are none
    (timm_model("test_resnet", num_classes=0), (3, 96, 96), "layer4", Layout("nchw", (3, 3))),
    (SMALL_VIT(num_classes=0), (3, 64, 64), "blocks.1.norm1", Layout("tokens", (4, 4), 1)),
    (
        SMALL_VIT(num_classes=0, global_pool="avg", fc_norm=False),
        (3, 64, 64),
        "norm",
        Layout("tokens", (4, 4), 1),
    ),
    # average pooling behind one register token; attention pooling
    (timm_model("test_vit2"), (3, 160, 160), "blocks", Layout("tokens", (10, 10), 1)),
    (timm_model("test_vit3"), (3, 160, 160), "norm", Layout("tokens", (10, 10), 1)),
    (SMALL_VIT(), (3, 64, 64), "blocks.1.norm1", Layout("tokens", (4, 4), 1)),
    (SMALL_VIT(global_pool="avg"), (3, 64, 64), "blocks", Layout("tokens", (4, 4), 1)),
    (
        timm_model("deit_tiny_distilled_patch16_224", **VIT),
        (3, 64, 64),
        "blocks.1.norm1",
        Layout("tokens", (4, 4), 2),
    ),
    (
        timm_model("cait_xxs24_224", **VIT),
        (3, 64, 64),
        "blocks_token_only.1.norm1",
        Layout("tokens", (4, 4), 1),
    ),
    (
        timm_model("swin_tiny_patch4_window7_224", **SWIN),
        (3, 64, 64),
        "norm",
        Layout("nhwc", (8, 8)),
    ),
    (tv_model("resnet18"), (3, 160, 96), "layer4", Layout("nchw", (5, 3))),
    (tv_model("mobilenet_v3_small"), (3, 128, 192), "features", Layout("nchw", (4, 6))),
    (tv_model("squeezenet1_1"), (3, 96, 96), "features", Layout("nchw", (5, 5))),
    # its classifier is all zero
    (
        partial(torchvision.models.VisionTransformer, hidden_dim=16, mlp_dim=32, **TV_VIT),
        (3, 64, 64),
        "encoder.layers.encoder_layer_1.ln_1",
        Layout("tokens", (4, 4), 1),
    ),
    (
        partial(torchvision.models.SwinTransformer, window_size=[4, 4], **TV_SWIN),
        (3, 64, 96),
        "norm",
        Layout("nhwc", (8, 12)),
    ),
]


@pytest.fixture(autouse=True)
def fix_seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("build", "shape", "name", "layout"), DEFAULTS)
def test_default_layer_shows_where_the_picture_changes(
    build: Build, shape: Shape, name: str, layout: Layout
) -> None:
    module = build().eval()
    target = measure_default_layer(module, shape)
    assert (target.name, target.layout) == (name, layout)
    h, w = layout.grid
    assert f"the last {h}x{w} grid on which the score depends everywhere" in target.reason
    assert keeps_places(prepare_module(module, shape), name, shape)


TOKENS = [(build, shape) for build, shape, _, layout in DEFAULTS if layout.kind == "tokens"]


@pytest.mark.parametrize(("build", "shape"), TOKENS)
def test_a_bright_patch_changes_its_own_token_most(build: Build, shape: Shape) -> None:
    # a prefix cut off at the wrong end moves every token by one, which corners do not show
    module = build().eval()
    target = measure_default_layer(module, shape)
    h, w = target.layout.grid
    down, right = shape[1] // h, shape[2] // w
    cells = [(0, 0), (1, w - 1), (h - 1, 0)]
    patches = [
        (slice(y * down, (y + 1) * down), slice(x * right, (x + 1) * right)) for y, x in cells
    ]
    changed = changes(module, target.name, shape, patches)
    assert [divmod(int(change.argmax()), w) for change in changed] == cells


HIERA = {"img_size": (96, 64), "embed_dim": 24, "num_heads": 1, "stages": (1, 1, 1, 1)}


@pytest.mark.parametrize("layer", ["unroll", "blocks.0.norm1", "blocks.1", "blocks.2", "blocks.3"])
def test_hieras_tokens_are_put_in_their_places(layer: str) -> None:
    # it keeps together what its next poolings join, so that corners are scattered over the tokens
    shape = (3, 96, 64)
    module = prepare_module(timm.create_model("hiera_tiny_224", **HIERA), shape)
    assert keeps_places(module, layer, shape)


def test_reason_names_what_was_passed_over() -> None:
    reason = measure_default_layer(timm.create_model("test_vit"), (3, 160, 160)).reason
    assert "(blocks.5.attn.qkv behind it holds queries, keys or values of attention)" in reason


class Residual(nn.Module):
    """A convolution beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


def end_with(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 8, 8), *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


NAMES = ["PoolFormerBlock", "LinearAttention", "PermuteMLP", "DropBlockUnit", "Identity", "Flatten"]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_block_is_called_changes_nothing(name: str) -> None:
    block = type(name, (Residual,), {})
    module = end_with(Residual(), block()).append(nn.Linear(8, 5))
    assert measure_default_layer(module, (3, 64, 64)).name == "2"


class Beheaded(nn.Module):
    """Blocks with attention and a class token, around which nothing is named after attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.keys = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.both = nn.ModuleList(nn.Linear(8, 16) for _ in range(2))

    def tokens(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        return torch.cat([self.token.expand(len(x), -1, -1), x], 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        for norm, key, both in zip(self.norms, self.keys, self.both, strict=True):
            y = norm(x)
            q, v = both(y).chunk(2, 2)
            x = x + (q @ key(y).mT).softmax(2) @ v
        return x[:, 0]


def test_what_attention_multiplies_is_recognised_by_what_becomes_of_it() -> None:
    module = nn.Sequential(Beheaded(), nn.Linear(8, 5))
    target = measure_default_layer(module, (3, 64, 64))
    assert (target.name, target.layout) == ("0.norms.1", Layout("tokens", (4, 4), 1))
    assert "(0.keys.1 behind it holds queries, keys or values of attention)" in target.reason


class Fused(nn.Module):
    """A block that makes queries, keys and values at once, and attends by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(8), nn.Linear(8, 24, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + mixed.transpose(1, 2).flatten(2)


class FusedNet(Beheaded):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Fused(), Fused())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.tokens(x))[:, 0]


def test_queries_keys_and_values_made_at_once_are_no_features() -> None:
    module = nn.Sequential(FusedNet(), nn.Linear(8, 5))
    assert measure_default_layer(module, (3, 64, 64)).name == "0.blocks.1.norm"


def test_a_backbone_named_after_attention_is_looked_into() -> None:
    module = nn.Sequential(type("AttnBackbone", (Beheaded,), {})(), nn.Linear(8, 5))
    assert measure_default_layer(module, (3, 64, 64)).name == "0.norms.1"


class Bilinear(nn.Module):
    """Pools products of channels: both sides are all of the features."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return (x @ x.mT).flatten(1)


class Weighted(nn.Module):
    """Pools places by a weight that it reads off them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return (x @ self.weight(x.mT).softmax(1)).flatten(1)


@pytest.mark.parametrize(("pool", "width"), [(Bilinear(), 64), (Weighted(), 8)])
def test_what_is_pooled_by_products_is_a_feature(pool: nn.Module, width: int) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 8, 8), Residual(), pool, nn.Linear(width, 5))
    assert measure_default_layer(module, (3, 64, 64)).name == "1"


class Joined(nn.Module):
    """Adds its branch to a shortcut itself, so that no layer puts out the sum."""

    def __init__(self, *behind: nn.Module) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 3, padding=1)
        self.behind, self.fc = nn.ModuleList(behind), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.branch(x)
        for part in self.behind:
            x = part(x)
        return self.fc(x.mean((2, 3)))


def test_a_branch_beside_a_shortcut_is_not_all_of_the_features() -> None:
    target = measure_default_layer(Joined(), (3, 64, 64))
    assert target.name == "stem"
    assert "(branch behind it lies beside a shortcut)" in target.reason


@pytest.mark.parametrize("behind", [nn.Dropout(), nn.AvgPool2d(2)])
def test_what_hands_a_sum_on_or_pools_it_stands_for_it(behind: nn.Module) -> None:
    assert measure_default_layer(Joined(behind), (3, 64, 64)).name == "behind.0"


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous()


PASSED_ON = [
    (nn.Dropout(), "2 behind it only passes it on"),
    (nn.AdaptiveAvgPool2d(8), "2 behind it only passes it on"),
    (nn.AvgPool2d(2), "2 behind it pools it"),
    (nn.MaxPool2d(2), "2 behind it pools it"),
    (Turned(), "2 behind it only turns it"),
]


@pytest.mark.parametrize(("layer", "said"), PASSED_ON)
def test_a_layer_that_makes_nothing_is_passed_over(layer: nn.Module, said: str) -> None:
    class Averaged(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[3](self[2](self[1](self[0](x))).flatten(1))

    cells = layer(torch.zeros(1, 8, 8, 8)).numel()
    module = Averaged(nn.Conv2d(3, 8, 8, 8), Residual(), layer, nn.Linear(cells, 5))
    target = measure_default_layer(module, (3, 64, 64))
    assert target.name == "1"
    assert said in target.reason


def test_zeros_do_not_show_that_a_layer_hands_on() -> None:
    first = nn.Conv2d(3, 8, 8, 8, bias=False)
    nn.init.zeros_(first.weight)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    assert measure_default_layer(nn.Sequential(first, nn.SiLU(), *head), (3, 64, 64)).name == "1"


class Picked(nn.Module):
    """Pools by a maximum in one of the ways in which it is written."""

    def __init__(self, pick: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pick = pick

    def forward(self, x: Tensor) -> Tensor:
        return self.pick(x)


MAXIMA: dict[str, Callable[[Tensor], Tensor]] = {
    "adaptive": lambda x: nn.functional.adaptive_max_pool2d(x, 1).flatten(1),
    "adaptive 2": lambda x: nn.functional.adaptive_max_pool2d(x, 2).mean((2, 3)),
    "window": lambda x: nn.functional.max_pool2d(x, x.shape[2:]).flatten(1),
    "amax": lambda x: x.amax((2, 3)),
    "tokens": lambda x: x.flatten(2).mT.max(1).values,
    "twice": lambda x: x.max(-1).values.max(-1)[0],
    "negative": lambda x: -(x.flatten(2).min(-1).values),
    "top-k": lambda x: x.flatten(2).topk(3, -1).values.mean(-1),
    "median": lambda x: x.flatten(2).median(2).values,
    "sorted": lambda x: x.flatten(2).sort(-1).values[..., -3:].mean(-1),
}


@pytest.mark.parametrize("pick", MAXIMA.values(), ids=MAXIMA)
def test_a_maximum_depends_on_all_that_it_is_taken_of(pick: Callable[[Tensor], Tensor]) -> None:
    # 8 channels of 64 cells: one gradient comes back to 8 of them at most
    parts = [nn.Conv2d(3, 8, 8, 8), Residual(), Picked(pick), nn.Linear(8, 5)]
    assert measure_default_layer(nn.Sequential(*parts), (3, 64, 64)).name == "1"


def test_a_maximum_of_a_part_depends_on_that_part() -> None:
    pick = Picked(lambda x: x[:, :, :4].amax((2, 3)))
    module = nn.Sequential(nn.Conv2d(3, 8, 8, 8), Residual(), pick, nn.Linear(8, 5))
    facts = {layer.name: layer for layer in survey_layers(module, (3, 64, 64)).layers}
    assert not facts["1"].depends


class Bench(nn.Module):
    """A small network with what makes probing hard."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.shared = nn.Conv2d(8, 8, 3, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.pair = HalfAndWhole()
        self.unused = nn.Conv2d(8, 8, 1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)
        # saturated: a logit alone would have no gradient
        nn.init.zeros_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mul_(2)
        x = self.shared(self.shared(self.relu(self.stem(x))))
        # reads every other row only
        skipping, x = self.pair(x.relu_())
        return self.fc(self.drop(x.mean((2, 3)) + skipping.mean((2, 3))))


class HalfAndWhole(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :, ::2], x


def test_survey_tells_the_facts() -> None:
    module = Bench()
    actual = survey_layers(module, (3, 32, 24))
    facts = {layer.name: layer for layer in actual.layers}
    assert list(facts) == [name for name, _ in module.named_modules() if name]
    assert actual.input_size == (32, 24)

    assert facts["stem"].shape == (1, 8, 16, 12)
    assert facts["stem"].type == "Conv2d"
    assert facts["stem"].parameters == 8 * 3 * 9 + 8
    assert facts["stem"].layout == Layout("nchw", (16, 12))
    assert facts["stem"].called == 1
    assert facts["stem"].depends
    assert facts["stem"].is_target
    assert facts["shared"].called == 2
    assert facts["unused"].called == 0
    assert facts["unused"].shape is None
    assert not facts["unused"].is_target
    assert facts["fc"].shape == (1, 5)
    assert facts["fc"].layout is None
    assert actual.default is not None
    assert actual.default.name == "shared"


def test_a_layer_whose_cells_are_read_in_part_is_no_target() -> None:
    class Part(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[2](self[1](self[0](x))[:, :, :4].mean((2, 3)))

    module = Part(nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2))
    first, second, _ = survey_layers(module, (3, 8, 8)).layers
    assert second.layout == Layout("nchw", (8, 8))
    assert not second.depends
    assert not first.depends
    with pytest.raises(LayerError, match=r"2 layers of this Part .* none of them everywhere.*'1'"):
        measure_default_layer(module, (3, 8, 8))


def test_windows_in_the_batch_are_no_targets() -> None:
    module = timm.create_model("swin_tiny_patch4_window7_224", **SWIN)
    facts = {layer.name: layer for layer in survey_layers(module, (3, 64, 64)).layers}
    assert facts["layers.0.blocks.0.attn.qkv"].shape == (16, 16, 72)
    assert facts["layers.0.blocks.0.attn.qkv"].layout is None
    assert facts["layers.0.blocks.0"].layout == Layout("nhwc", (16, 16))


def test_maps_in_a_dictionary_are_no_target() -> None:
    class Named(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            return {"maps": super().forward(x)}

    class Model(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[2](self[1](self[0](x))["maps"].mean((2, 3)))

    module = Model(nn.Conv2d(3, 4, 3, 1, 1), Named(4, 4, 1), nn.Linear(4, 2))
    assert measure_default_layer(module, (3, 8, 8)).name == "0"


def test_no_grid_at_all() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    with pytest.raises(LayerError, match=r"No layer of this Sequential .* 3x4x4 input"):
        measure_default_layer(module, (3, 4, 4))


class Silent(nn.Sequential):
    """Its output carries no gradient."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def test_why_nothing_could_be_measured() -> None:
    parts = [nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    with pytest.raises(
        LayerError, match=r"by measuring: its output passes no gradient back .* such as '0'"
    ):
        measure_default_layer(Silent(*parts), (3, 8, 8))
    nn.init.constant_(parts[0].weight, torch.nan)
    with pytest.raises(LayerError, match=r"by measuring: its output is not finite .* such as '0'"):
        measure_default_layer(nn.Sequential(*parts), (3, 8, 8))


def test_a_model_that_does_not_run_is_named() -> None:
    with pytest.raises(ModelError, match=r"does not run on a 3x96x96 input: .*96.*64"):
        survey_layers(SMALL_VIT()(), (3, 96, 96))


def _state(module: nn.Module) -> list[object]:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]
    return [
        hooks,
        [m.training for m in module.modules()],
        [(p.requires_grad, p.grad, p.clone().tolist()) for p in module.parameters()],
        [buffer.clone().tolist() for buffer in module.buffers()],
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    ]


class Draws(nn.Sequential):
    """Draws from the global generator, in whatever mode it is."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.rand(1))


@pytest.mark.parametrize("raises", [False, True])
def test_the_model_is_left_as_it_was_found(raises: bool) -> None:
    module = Draws(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).append(nn.Linear(5 if raises else 4, 2))
    module[1].eval()
    module[0].weight.requires_grad_(False)
    before = _state(module)
    if raises:
        with pytest.raises(ModelError):
            survey_layers(module, (3, 8, 8))
    else:
        assert measure_default_layer(module, (3, 8, 8)).name == "1"
    assert _state(module) == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_under_the_callers_mode_and_on_weights_made_there(
    mode: type[torch.no_grad | torch.inference_mode],
) -> None:
    with mode():
        module = timm.create_model("test_resnet")
        assert measure_default_layer(module, (3, 64, 64)).name == "layer4"
    assert measure_default_layer(module, (3, 64, 64)).name == "layer4"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_half_precision_finds_the_same(name: str, dtype: torch.dtype) -> None:
    module = timm.create_model(name)
    expected = measure_default_layer(module, (3, 160, 160))
    assert measure_default_layer(module.to(dtype), (3, 160, 160)) == expected


def test_one_forward_and_one_backward_pass() -> None:
    passes: list[str] = []
    module = timm.create_model("test_resnet")
    module.conv1.register_forward_hook(lambda *_: passes.append("forward"))
    module.conv1.register_full_backward_hook(lambda *_: passes.append("backward"))
    survey_layers(module, (3, 64, 64))
    assert passes == ["forward", "backward"]


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return torchvision.models.resnet18()


FOUND = [
    ("layer4", "layer4"),
    ("layer4.1.conv2", "layer4.1.conv2"),
    ("layer4.-1", "layer4.1"),
    ("layer4.-2.conv-1", "layer4.0.conv1"),
    ("Layer-4.1.BN2", "layer4.1.bn2"),
    ("FC", "fc"),
]


@pytest.mark.parametrize(("given", "name"), FOUND)
def test_find_layer(resnet: nn.Module, given: str, name: str) -> None:
    assert find_layer(resnet, given) == name


@pytest.mark.parametrize("given", ["9" * 5000, "layer4." + "9" * 5000, "layer4.\u00b2", "--1"])
def test_a_number_that_is_none_is_no_layer(resnet: nn.Module, given: str) -> None:
    with pytest.raises(UnknownName):
        find_layer(resnet, given)


def test_find_layer_counts_named_blocks_from_the_end() -> None:
    module = torchvision.models.VisionTransformer(hidden_dim=16, mlp_dim=32, **TV_VIT)
    assert find_layer(module, "encoder.layers.-1.ln-1") == "encoder.layers.encoder_layer_1.ln_1"


@pytest.mark.parametrize("given", ["layer5", "layer4.2", "layer4.-3", "", "layer4.", "-1", "."])
def test_find_layer_offers_the_closest(resnet: nn.Module, given: str) -> None:
    with pytest.raises(UnknownName, match=r"Unknown layer .*All: camviz --preview-model") as raised:
        find_layer(resnet, given)
    assert raised.value.given == given


def test_find_layer_does_not_guess_between_two() -> None:
    module = nn.Module()
    module.a_b, module.ab = nn.Identity(), nn.Identity()
    assert find_layer(module, "a_b") == "a_b"
    with pytest.raises(UnknownName, match="Closest: 'ab', 'a_b'"):
        find_layer(module, "A-B")


def test_find_layer_gives_a_shared_layer_its_first_name() -> None:
    module = nn.Module()
    module.one = nn.Identity()
    module.two = module.one
    assert find_layer(module, "two") == "one"
