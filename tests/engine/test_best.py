"""What is best by measurement: the table, what it chooses, and the maps that come of it."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import camcli
from camcli.engine.best import RESEMBLES, TABLE, choose_best
from camcli.errors import UsageError
from camcli.methods.postprocessing import enlarge, normalise
from camcli.models.inspection.anatomy import Kind, measure_anatomy
from camcli.models.inspection.target_layers import measure_default_layer
from camcli.records import BestFor
from camcli.registry import METHODS, depends_on_category, depends_on_layer
from tests.networks import Attending, Pooled, Staged, noise
from tests.tools.best_table import format_table

SHAPE = (3, 48, 64)


class Dilated(Staged):
    """Its last two stages keep the grid of the first, and only their channels grow."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.middle = nn.Sequential(nn.Conv2d(8, 12, 3, 1, 1), nn.BatchNorm2d(12))
            self.last = nn.Sequential(nn.Conv2d(12, 24, 3, 1, 1), nn.BatchNorm2d(24))
            self.fc = nn.Linear(24, 5)


class Windowed(Staged):
    """The cells of its last stage attend to each other, and are pooled as a grid."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.middle(self.stem(x)))
        b, c, h, w = x.shape
        cells = x.flatten(2).mT
        attended = (cells @ cells.mT / c).softmax(2) @ cells
        return self.fc(self.pool(attended.mT.reshape(b, c, h, w)).flatten(1))


def anatomy_of(network: nn.Module) -> tuple[Kind, str, str | None]:
    network = network.eval()
    actual = measure_anatomy(network, SHAPE, measure_default_layer(network, SHAPE))
    return actual.kind, actual.last, actual.earlier


def test_a_convolutional_network_is_explained_at_the_end_of_the_stage_before_the_last_too() -> None:
    assert anatomy_of(Staged()) == ("convolutional", "last", "middle")


def test_where_the_grid_stays_a_stage_is_recognised_by_half_the_channels() -> None:
    assert anatomy_of(Dilated()) == ("convolutional", "last", "middle")


def test_a_class_token_is_explained_behind_a_sixth_of_the_blocks_too() -> None:
    assert anatomy_of(Attending()) == ("class token", "blocks.1.norm1", "blocks.0")
    deep = VisionTransformer(32, 8, depth=12, embed_dim=16, num_heads=2, num_classes=3)
    actual = measure_anatomy(deep.eval(), (3, 32, 32), measure_default_layer(deep, (3, 32, 32)))
    assert actual.earlier == "blocks.1"


def test_tokens_that_are_pooled_are_distinguished_from_those_that_a_class_token_reads() -> None:
    pooled = VisionTransformer(
        32, 8, depth=2, embed_dim=16, num_heads=2, num_classes=3, global_pool="avg"
    ).eval()
    actual = measure_anatomy(pooled, (3, 32, 32), measure_default_layer(pooled, (3, 32, 32)))
    assert (actual.kind, actual.earlier) == ("pooled tokens", "blocks.0")


def test_tokens_among_which_nothing_attends_are_explained_at_the_last_layer_alone() -> None:
    mixer = MlpMixer(img_size=32, patch_size=8, num_blocks=2, embed_dim=16, num_classes=3).eval()
    recipe = choose_best(mixer, (3, 32, 32))
    assert (recipe.kind, str(recipe)) == ("mixed tokens", "hirescam@norm")
    assert recipe.note == (
        "measured for convolutional networks, not for mixed tokens; no earlier layer was found"
    )


def test_stages_with_attention_are_distinguished_from_convolutions() -> None:
    assert anatomy_of(Windowed())[0] == "hierarchical"


def test_each_aim_of_each_kind_has_one_row() -> None:
    for kind in set(get_args(Kind)) - RESEMBLES.keys():
        for aim in get_args(BestFor):
            assert sum(row.kind == kind and aim in row.aims for row in TABLE) == 1


def test_rows_name_methods_of_a_class_and_say_what_they_rest_on() -> None:
    for row in TABLE:
        assert row.measured
        for method, place in row.parts:
            assert method in METHODS
            assert depends_on_category(method)
            assert depends_on_layer(method) == (place != "none")
        for one in row.measured:
            for mean, low, high in (one.peak, one.heat, one.pixel_ap, one.box):
                assert 0 <= low <= mean <= high <= 100


def test_no_row_is_worse_than_gradcam_on_what_it_was_measured() -> None:
    for row in TABLE:
        for one in row.measured:
            actual = [one.peak, one.heat, one.pixel_ap, one.box]
            # what shows the evidence alone need not cover the object
            counted = actual[:2] if row.aims == ("evidence",) else actual
            for (_, _, high), gradcam in zip(counted, one.gradcam, strict=False):
                assert high > gradcam


@pytest.mark.parametrize("best_for", get_args(BestFor))
@pytest.mark.parametrize("network", [Staged(), Attending()])
def test_the_map_is_the_recipe_followed_by_hand(network: nn.Module, best_for: BestFor) -> None:
    network, inputs = network.eval(), noise()
    recipe = choose_best(network, SHAPE, best_for)
    actual = camcli.heatmaps(network, inputs, "best", best_for=best_for, targets=[1, 3])
    maps = [
        camcli.heatmaps(network, inputs, method, target_layers=layer or None, targets=[1, 3])
        for method, layer in recipe.parts
    ]
    large = torch.stack([enlarge(normalise(m), (48, 64)) for m in maps])
    expected = large.prod(0) if recipe.combination == "product" else large.mean(0)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_picture_does_not_depend_on_its_neighbours_and_classes_do_matter() -> None:
    network, inputs = Staged().eval(), noise(2)
    both = camcli.heatmaps(network, inputs, "best", targets=[[0, 1], [2, 3]])
    alone = camcli.heatmaps(network, inputs[1:], "best", targets=[3])
    assert both.shape == (2, 2, 48, 64)
    torch.testing.assert_close(both[1, 1:], alone, rtol=1e-4, atol=1e-5)
    assert not torch.equal(both[1, 0], both[1, 1])


def test_without_an_earlier_layer_the_last_one_is_explained_and_that_is_said() -> None:
    recipe = choose_best(Pooled().eval(), (1, 6, 8))
    assert str(recipe) == "hirescam@features"
    assert recipe.note == "no earlier layer was found"
    assert not recipe.measured


def test_a_choice_says_what_it_is_and_what_it_rests_on() -> None:
    recipe = choose_best(Staged().eval(), SHAPE)
    assert str(recipe) == "gradcamelementwise@middle x hirescam@last"
    assert (recipe.combined.methods, recipe.combined.layers) == (
        ("gradcamelementwise", "hirescam"),
        ("middle", "last"),
    )
    assert recipe.measured
    assert not recipe.note
    attending = choose_best(Attending().eval(), SHAPE)
    assert str(attending) == "genericattention x gradcamelementwise@blocks.0"
    assert str(choose_best(Attending().eval(), SHAPE, "extent")) == "gradcamelementwise@blocks.0"
    windowed = choose_best(Windowed().eval(), SHAPE)
    assert windowed.note == "measured for convolutional networks, not for hierarchical"
    assert not windowed.measured


def test_the_handbook_shows_all_that_the_table_holds() -> None:
    page = (Path(camcli.__file__).parent / "docs" / "methods.md").read_text(encoding="utf-8")
    assert format_table() in page, "python -m tests.tools.best_table prints what is to stand there"


def test_a_choice_gives_its_reasons() -> None:
    reason = choose_best(Staged().eval(), SHAPE, "evidence").reason
    assert reason == (
        "evidence, for a convolutional network; measured with EfficientNet-Lite0 on coco128's"
        " photos and 4 others"
    )
    assert choose_best(Windowed().eval(), SHAPE).reason == (
        "balanced, for a network of stages with attention; not measured here (measured for"
        " convolutional networks, not for hierarchical)"
    )


def test_another_aim_is_refused() -> None:
    with pytest.raises(UsageError, match="balanced, evidence, extent, not 'faith'"):
        choose_best(Staged().eval(), SHAPE, "faith")  # type: ignore[arg-type]
