from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from typing import cast

import pytest
import timm
import torch
from torch import Tensor, nn

import camcli
from camcli.engine.batch_context import find_places
from camcli.errors import CamvizWarning, LayerError
from camcli.models.inspection.layout import Layout
from camcli.models.inspection.spatial_order import measure_places
from camcli.models.inspection.target_layers import measure_default_layer

SHAPE = (3, 64, 48)
GRID = (8, 6)
CELLS = 48


@pytest.fixture(autouse=True)
def fix_seed() -> None:
    torch.manual_seed(0)


class PatchEncoder(nn.Module):
    """Patches in any order, and a class token in front of them, behind them or among them."""

    def __init__(self, order: Tensor | None = None, at: int | None = None, first: bool = False):
        super().__init__()
        self.order, self.at, self.first = order, at, first
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.positions = nn.Parameter(torch.randn(1, CELLS, 16) / 5)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        kind = nn.TransformerEncoderLayer(16, 4, 32, batch_first=not first)
        self.layers = nn.TransformerEncoder(kind, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT + self.positions
        if self.order is not None:
            x = x[:, self.order]
        if self.at is not None:
            token = self.token.expand(len(x), -1, -1)
            x = torch.cat([x[:, : self.at], token, x[:, self.at :]], 1)
        x = self.layers(x.transpose(0, 1)).transpose(0, 1) if self.first else self.layers(x)
        return self.fc(x.mean(1) if self.at is None else x[:, self.at])


def alike(one: PatchEncoder, *others: PatchEncoder) -> Iterator[nn.Module]:
    for module in (one, *others):
        module.load_state_dict(one.state_dict())
        yield module.eval()


def images(b: int = 2) -> Tensor:
    return torch.randn(b, *SHAPE, generator=torch.Generator().manual_seed(1))


LAYER = "layers.layers.0"


def test_shuffled_tokens_are_put_in_order() -> None:
    order = torch.randperm(CELLS)
    straight, shuffled = alike(PatchEncoder(at=0), PatchEncoder(order, at=0))
    actual = measure_places(shuffled, SHAPE, [LAYER])[LAYER]
    assert actual.layout == Layout("tokens", GRID, 1, order=tuple(order.argsort().tolist()))
    assert actual.doubt(LAYER) == ""
    for layers in (None, LAYER):
        maps = [camcli.heatmaps(m, images(), target_layers=layers) for m in (straight, shuffled)]
        assert torch.allclose(*maps, atol=1e-7)
        assert maps[0].std() > 1e-3


METHODS = ["layercam", "ablationcam", "fullgrad", "rollout", "gradattention", "legrad"]


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_method_knows_the_order(method: str) -> None:
    straight, shuffled = alike(PatchEncoder(at=0), PatchEncoder(torch.randperm(CELLS), at=0))
    first, second = (camcli.heatmaps(m, images(1), method) for m in (straight, shuffled))
    assert torch.allclose(first, second, atol=1e-4 * float(first.abs().max()))


@pytest.mark.parametrize(("at", "prefix", "suffix"), [(0, 1, 0), (CELLS, 0, 1), (CELLS // 2, 0, 1)])
def test_a_class_token_is_found_wherever_it_stands(at: int, prefix: int, suffix: int) -> None:
    straight, other = alike(PatchEncoder(at=0), PatchEncoder(at=at))
    layout = measure_places(other, SHAPE, [LAYER])[LAYER].layout
    assert (layout.prefix, layout.suffix) == (prefix, suffix)
    maps = [camcli.activations(m, images(), LAYER)[LAYER] for m in (straight, other)]
    assert torch.allclose(*maps, atol=1e-5)


class Swapped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3)


class Mixing(nn.Module):
    """Every cell looks at all places alike."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.flatten(2)).view_as(x)


def network(*between: nn.Module) -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    last = nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU(), *between, last, *head).eval()


@pytest.mark.parametrize("between", [Swapped, Mixing])
def test_cells_that_are_no_places_are_passed_over_or_warned_of(between: type[nn.Module]) -> None:
    module, inputs = network(between()), torch.randn(1, 3, 64, 64)
    default = measure_default_layer(module, (3, 64, 64))
    assert default.name == "1"
    assert "(3 behind it has cells that are no places of the picture)" in default.reason
    for call in (camcli.heatmaps, camcli.activations):
        with pytest.warns(CamvizWarning, match="8x8 cells of layer '3' are no places of the pict"):
            call(module, inputs, target_layers="3")
    # sound layers of the same network are used in silence
    camcli.heatmaps(module, inputs, target_layers="1")


def test_no_layer_with_places_is_refused() -> None:
    class Latents(nn.Module):
        """Reads the picture into tokens of its own, as Perceiver does."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(64)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x.flatten(1).unfold(1, 64, 1)[:, ::97][:, :25].sin())

    class LatentNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.latents, self.fc = nn.Linear(3072, 3072), Latents(), nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.latents(self.read(x.flatten(1))).mean(1))

    with pytest.raises(
        LayerError, match=r"by measuring: each layer on .* no places of the picture"
    ):
        measure_default_layer(LatentNet().eval(), (3, 32, 32))


def test_places_are_looked_for_once() -> None:
    passes: list[int] = []
    module = network(nn.Unflatten(0, (-1, 1)), nn.Flatten(0, 1))
    module[0].register_forward_hook(lambda _, __, output: passes.append(len(output)))
    for _ in range(3):
        find_places(module, (3, 64, 64), ["4"])
    # one that is recorded, and one of the picture, four strips brightened, and all of it
    assert passes == [1, 6]
    module[4] = nn.Conv2d(8, 8, 1)
    find_places(module, (3, 64, 64), ["4"])
    assert passes == [1, 6, 1, 6]


class Mixer(nn.Module):
    """A block of an MLP-Mixer, in which each token sees all."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.tokens = nn.Sequential(nn.Linear(CELLS, 32), nn.GELU(), nn.Linear(32, CELLS))
        self.channels = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norms[0](x).mT).mT
        return x + self.channels(self.norms[1](x))


# back and forth, and in blocks of 2x2
BLOCKS = torch.arange(CELLS).view(4, 2, 3, 2).transpose(1, 2).flatten()
SERPENTINE = torch.stack(
    [row.flip(0) if i % 2 else row for i, row in enumerate(torch.arange(CELLS).view(GRID))]
).flatten()


@pytest.mark.parametrize("order", [BLOCKS, SERPENTINE], ids=["blocks", "serpentine"])
def test_an_order_is_known_by_an_earlier_layer_where_tokens_see_all(order: Tensor) -> None:
    encoder = PatchEncoder(order)
    encoder.layers = nn.Sequential(Mixer(), Mixer(), Mixer())  # type: ignore[assignment]
    encoder.eval()
    default = measure_default_layer(encoder, SHAPE)
    assert default.name == "layers"
    assert default.layout == Layout("tokens", GRID, order=tuple(order.argsort().tolist()))


class MeanAdded(nn.Module):
    """Adds to every cell what normalised cells are on average, as first attention does."""

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.layer_norm(x.mT, (x.shape[1],)).mean(1)[:, :, None] / 10


def test_small_first_weights_do_not_drown_below_what_batch_norms_add() -> None:
    module = network(
        *(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(4)),
        nn.Flatten(2),
        MeanAdded(),
        nn.Unflatten(2, (8, 8)),
    )
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=0.0002)
            assert part.bias is not None
            nn.init.zeros_(part.bias)
    last = str(len(module) - 4)
    actual = measure_places(module, (3, 64, 64), [last])[last]
    assert actual.clarity > 0.8
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-5}


def test_few_pictures_run_together_and_no_output_is_kept() -> None:
    (shuffled,) = alike(PatchEncoder(torch.randperm(CELLS)))
    batches: list[int] = []
    shuffled.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
    outputs: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def see(*called: object) -> None:
        alive.append(sum(output() is not None for output in outputs))
        outputs.append(weakref.ref(cast(Tensor, called[-1])))

    for layer in shuffled.layers.layers:
        layer.register_forward_hook(see)
    names = [f"layers.layers.{i}.norm2" for i in range(2)]
    assert all(places.layout.order for places in measure_places(shuffled, SHAPE, names).values())
    assert max(batches) <= 10
    assert max(alive) <= 1


def test_what_moves_nothing_needs_no_look() -> None:
    passes: list[int] = []
    module = timm.create_model("test_resnet").eval()
    module.conv1.register_forward_hook(lambda _, __, output: passes.append(len(output)))
    # 2x2 cells, each of which sees the whole picture
    places = find_places(module, (3, 64, 64), ["layer4.0.conv2"])["layer4.0.conv2"]
    assert places.layout == Layout("nchw", (2, 2))
    assert places.clarity == 1
    assert passes == [1]


class Parted(nn.Module):
    """Convolutions of a part of the channels, beside which the others go on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.first(x).chunk(2, dim=-3)
        return torch.cat([self.last(one) + one[:, :4], other], 1).mean((2, 3))


def test_parts_of_the_channels_need_no_look() -> None:
    module, passes = Parted().eval(), list[int]()
    module.first.register_forward_hook(lambda _, __, output: passes.append(len(output)))
    assert find_places(module, (3, 64, 64), ["last"])["last"].clarity == 1
    assert passes == [1]


class StrongMean(nn.Module):
    """Adds the mean of all cells to each: little of it, unless a fresh BatchNorm normalises it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x + 30 * self.norm(mean / 100).expand_as(x)


def test_a_fresh_batch_norm_that_would_hide_places_is_left_as_it_is() -> None:
    module = network(StrongMean())
    assert measure_places(module, (3, 64, 64), ["3"])["3"].doubt("3") == ""


def test_a_model_that_takes_one_picture_at_a_time_is_measured_in_as_many_passes() -> None:
    class SinglePicture(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.view(1, 3, 64, 64))

    module = SinglePicture(*network())
    places = measure_places(module, (3, 64, 64), ["2"])["2"]
    assert places.layout == Layout("nchw", (8, 8))
    assert 0.6 < places.clarity < 1
    assert camcli.heatmaps(module, torch.randn(1, 3, 64, 64), target_layers="2").shape == (1, 8, 8)


def test_a_layer_that_never_changes_is_not_doubted() -> None:
    module = network(nn.Flatten(2), nn.Unflatten(2, (8, 8)))
    nn.init.zeros_(module[4].weight)
    actual = measure_places(module, (3, 64, 64), ["4"])["4"]
    assert (actual.doubt("4"), actual.has_none) == ("", False)


SOUND = [
    ("test_resnet", "layer4"),
    ("test_convnext", "stages.0"),
    ("test_coatnet", "norm"),
    ("test_nfnet", "final_conv"),
    ("test_efficientnet_gn", "blocks"),
    ("test_mambaout", "stages"),
    ("test_vit", "blocks.5"),
    ("test_vit3", "norm"),
    ("test_vit_relpos", "blocks.8"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "layer"), [row for row in SOUND if timm.is_model(row[0])])
def test_sound_models_with_random_weights_are_not_doubted(
    name: str, layer: str, dtype: torch.dtype
) -> None:
    module = timm.create_model(name).eval().to(dtype)
    places = measure_places(module, (3, 160, 160), [layer])[layer]
    assert places.doubt(layer) == ""
    assert places.layout.order == ()


FIRST = [None, "layers.layers.0.norm1", ["layers.layers.0", "layers.layers.0.norm1"]]
ALL = [*METHODS, "gradcam", "eigencam", "genericattention", "shapleycam", "scorecam"]


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("layers", FIRST)
def test_sequence_first_is_batch_first_turned(method: str, layers: list[str] | None) -> None:
    first, second = alike(PatchEncoder(at=0, first=True), PatchEncoder(at=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual, expected = (
            camcli.heatmaps(m, images(3), method, target_layers=layers) for m in (first, second)
        )
    close = 1e-4 * float(expected.abs().max())
    assert torch.allclose(actual, expected, atol=close)
    single = [camcli.heatmaps(first, i[None], method, target_layers=layers) for i in images(3)]
    assert torch.allclose(actual, torch.cat(single), atol=close)


def test_sequence_first_is_a_layout_of_its_own() -> None:
    target = measure_default_layer(PatchEncoder(first=True).eval(), SHAPE)
    assert (target.name, target.layout) == ("layers", Layout("sequence first", GRID))
    assert target.layout.description == "8x6 tokens, sequence first"


def test_as_many_pictures_as_tokens_are_told_apart() -> None:
    first, second = alike(PatchEncoder(first=True), PatchEncoder())
    inputs = images(CELLS)
    maps = [camcli.heatmaps(m, inputs, target_layers=LAYER) for m in (first, second)]
    assert torch.allclose(*maps, atol=1e-6)


class Cut(nn.Module):
    """Looks at a part of the picture alone, or at one with much around it."""

    def __init__(self, rows: slice, columns: slice, padding: int = 0) -> None:
        super().__init__()
        self.rows, self.columns, self.padding = rows, columns, padding
        self.first, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(x[:, :, self.rows, self.columns], (self.padding,) * 4)
        return self.fc(self.last(self.first(x).relu()).relu().mean((2, 3)))


ALL, MIDDLE = slice(None), slice(16, -16)


@pytest.mark.parametrize("layer", [None, "first"])
@pytest.mark.parametrize(
    ("rows", "columns", "unseen"),
    [
        (slice(32), slice(32), "bottom, right"),
        (slice(-32, None), slice(-32, None), "top, left"),
        (MIDDLE, MIDDLE, "top, bottom, left, right"),
    ],
)
def test_what_a_model_cuts_off_is_reported(
    rows: slice, columns: slice, unseen: str, layer: str | None
) -> None:
    model = Cut(rows, columns).eval()
    with pytest.warns(CamvizWarning, match=rf"does not see the picture's {unseen}:"):
        camcli.heatmaps(model, torch.rand(1, 3, 64, 64), target_layers=layer)


@pytest.mark.parametrize(("padding", "is_doubted"), [(0, False), (1, False), (64, True)])
def test_a_picture_with_much_around_it_is_doubted(padding: int, is_doubted: bool) -> None:
    default = measure_default_layer(Cut(ALL, ALL, padding).eval(), (3, 96, 96))
    assert default.name == "last"
    assert bool(default.doubt) is is_doubted
