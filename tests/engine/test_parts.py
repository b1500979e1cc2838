"""Methods, each at a layer of its own, whose raw maps one pass hands out; where they can be run."""

from __future__ import annotations

import pytest
import torch

import camcli
from camcli.engine.answer_request import answer_request
from camcli.engine.compatibility import find_incompatible_parts
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.layer_selection import spread_layers
from camcli.engine.targets import FixedCategories, LikeliestCategories, TopKCategories
from camcli.errors import LayerError, MethodError, UsageError
from camcli.methods.combine import CombinedMethod
from tests.engine.test_best import Dilated
from tests.networks import Attending, Pooled, Staged, noise

PARTS = (("gradcam", "last"), ("gradcam", "middle"), ("layercam", "middle"), ("eigencam", "last"))


def test_raw_maps_of_parts_are_those_of_each_method_by_itself() -> None:
    network, inputs = Staged().eval(), noise()
    choice = FixedCategories(torch.tensor([[1], [3]]))
    result = answer_request(network, inputs, choice, ExplainRequest((), (), parts=PARTS))
    assert {(m, layer) for m, maps in result.maps.items() for layer in maps} == {*PARTS}
    for method, layer in PARTS:
        alone = camcli.heatmaps(network, inputs, method, target_layers=layer, targets=[1, 3])
        torch.testing.assert_close(result.maps[method][layer][:, 0], alone, rtol=1e-4, atol=1e-6)


def test_parts_stand_beside_what_else_is_asked_and_are_left_out_of_a_selection() -> None:
    combined = CombinedMethod("best", (("hirescam", "last"), ("fem", "stem")), "product")
    request = ExplainRequest(("gradcam",), ("last",), parts=PARTS[1:3], combined=(combined,))
    assert request.all_methods == ("gradcam", "layercam", "hirescam", "fem")
    assert request.all_layers == ("last", "middle", "stem")
    result = answer_request(Staged().eval(), noise(), TopKCategories(), request)
    assert {name: set(maps) for name, maps in result.maps.items()} == {
        "gradcam": {"last", "middle"},
        "layercam": {"middle"},
        "best": {""},
    }
    assert request.select(["gradcam"]).parts == ()
    with pytest.raises(MethodError, match=r"eigen-smooth .* rise"):
        ExplainRequest((), (), parts=(("rise", ""),), eigen_smooth=True)


def test_where_a_method_cannot_be_run_is_told_by_layer() -> None:
    parts = (("cam", "last"), ("cam", "middle"), ("rollout", ""), ("gradcam", "fc"))
    request = ExplainRequest((), (), parts=parts)
    wrong = find_incompatible_parts(Staged().eval(), noise(1), TopKCategories(), request, parts)
    # a ReLU stands between its last stage and the pooling
    assert set(wrong) == {("cam", "last"), ("cam", "middle"), ("rollout", ""), ("gradcam", "fc")}
    assert "linear" in wrong["cam", "middle"]
    request = ExplainRequest((), (), parts=parts[1:3])
    assert set(
        find_incompatible_parts(Attending().eval(), noise(1), TopKCategories(), request, parts[1:3])
    ) == {("cam", "middle")}


def test_the_likeliest_of_a_pictures_own_classes_is_explained() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], [5.0, 6.0, 7.0, 1.0]])
    choice = LikeliestCategories(((2, 1), (), (0,)))
    assert choice.pick(logits).tolist() == [[1], [3], [0]]
    assert choice.part(slice(1, 3)).pick(logits[1:]).tolist() == [[3], [0]]
    # a single logit is a no and a yes
    assert LikeliestCategories(((0, 1), ())).pick(torch.tensor([[-2.0], [2.0]])).tolist() == [
        [0], [1],
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"Category 4 is not in 0\.\.3"):
        LikeliestCategories(((4,), (), ())).pick(logits)


def test_layers_are_spread_from_fine_to_coarse_grids() -> None:
    shape = (3, 48, 64)
    assert spread_layers(Staged().eval(), shape, 3) == ("stem", "middle", "last")
    # the coarsest are kept
    assert spread_layers(Staged().eval(), shape, 2) == ("middle", "last")
    # where grids are fewer, the middles between
    assert spread_layers(Staged().eval(), shape, 5) == (
        "stem",
        "middle.0",
        "middle",
        "last.0",
        "last",
    )
    assert spread_layers(Staged().eval(), shape, 99) == (
        "stem.0", "stem", "middle.0", "middle", "last.0", "last",
    )  # fmt: skip
    dilated = spread_layers(Dilated().eval(), shape, 3)
    assert dilated[-1] == "last" and len(dilated) == 3
    # what is behind the default layer is none of them
    assert spread_layers(Attending().eval(), shape, 5)[-2:] == ("blocks.0", "blocks.1.norm1")
    assert spread_layers(Pooled().eval(), (1, 4, 6), 5) == ("features",)
    with pytest.raises(LayerError):
        spread_layers(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), (1, 2, 2), 3)
