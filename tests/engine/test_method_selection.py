"""Several methods that become one map, each at a layer of its own, and the best."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import camcli
from camcli.errors import MethodError, UnknownName, UsageError
from camcli.methods.postprocessing import enlarge, normalise
from tests.networks import Attending, Staged, noise

SIZE = (48, 64)
TWO = ["gradcamelementwise@middle", "hirescam@last"]


def make_pooled_tokens() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"depth": 2, "embed_dim": 16, "num_heads": 2, "num_classes": 5}
    return VisionTransformer(SIZE, 8, global_pool="avg", **sizes)


def make_mixer() -> nn.Module:
    torch.manual_seed(0)
    return MlpMixer(img_size=32, patch_size=8, num_blocks=2, embed_dim=16, num_classes=5)


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "convolutional": (Staged, SIZE),
    "class token": (Attending, SIZE),
    "pooled tokens": (make_pooled_tokens, SIZE),
    "mixed tokens": (make_mixer, (32, 32)),
}


def follow(network: nn.Module, inputs: Tensor, terms: list[str], **options: Any) -> Tensor:
    """Makes each part by itself, and stretches and enlarges it.  [n b H W]"""
    maps = []
    for term in terms:
        method, _, layer = term.partition("@")
        layers = [layer] if layer else None
        raw = camcli.heatmaps(network, inputs, method, target_layers=layers, **options)
        maps.append(enlarge(normalise(raw), (inputs.shape[-2], inputs.shape[-1])))
    return torch.stack(maps)


@pytest.mark.parametrize("aim", ["balanced", "evidence", "extent"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_has_a_best_map_and_is_left_as_it_was(kind: str, aim: Any) -> None:
    make, size = KINDS[kind]
    network = make()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inputs = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    maps = camcli.heatmaps(network, inputs, "best", best_for=aim, targets=[1, 3])
    assert maps.shape == (2, *size)
    assert 0 <= maps.min() <= maps.max() <= 1
    alone = camcli.heatmaps(network, inputs[1:], "best", best_for=aim, targets=[3])
    torch.testing.assert_close(maps[1:], alone, rtol=1e-3, atol=1e-5)
    assert network.training
    assert not any(m._forward_hooks for m in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(("how", "expected"), [("product", Tensor.prod), ("mean", Tensor.mean)])
def test_a_combination_is_that_of_the_parts_by_hand(
    how: Any, expected: Callable[[Tensor, int], Tensor]
) -> None:
    network, inputs = Staged().eval(), noise(2)
    actual = camcli.heatmaps(network, inputs, TWO, combine=how, targets=2)
    parts = follow(network, inputs, TWO, targets=2)
    torch.testing.assert_close(actual, expected(parts, 0), rtol=1e-4, atol=1e-5)


def test_all_parts_come_from_one_forward_and_one_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, inputs = Staged().eval(), noise()
    camcli.heatmaps(network, inputs, "best")
    passes: list[str] = []
    backward = torch.autograd.grad
    network.register_forward_hook(lambda *_: passes.append("forward"))

    def count(*args: Any, **kwargs: Any) -> Any:
        passes.append("backward")
        return backward(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", count)
    camcli.heatmaps(network, inputs, ["gradcam", "best"], best_for="evidence")
    assert passes == ["forward", "backward"]


def test_recording_begins_at_the_earlier_layer() -> None:
    network, inputs = Staged().eval(), noise()
    recorded: dict[str, bool] = {}
    for name in ("stem", "middle", "last"):
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: recorded.update({name: args[0].requires_grad})
        )
    camcli.heatmaps(network, inputs, TWO, combine="product")
    # what the last stage is given is recorded
    assert recorded == {"stem": False, "middle": False, "last": True}


def test_best_stands_beside_other_methods_which_stay_as_they_are() -> None:
    network, inputs = Staged().eval(), noise()
    both = camcli.heatmaps(network, inputs, ["best", "gradcam"], targets=1)
    assert list(both) == ["best", "gradcam"]
    alone = camcli.heatmaps(network, inputs, "gradcam", targets=1)
    torch.testing.assert_close(both["gradcam"], alone, rtol=1e-4, atol=1e-5)
    best = camcli.heatmaps(network, inputs, "best", targets=1)
    torch.testing.assert_close(both["best"], best, rtol=1e-4, atol=1e-5)


def test_a_part_without_a_layer_looks_at_the_target_layers_or_the_default_one() -> None:
    network, inputs = Staged().eval(), noise()
    fused = camcli.heatmaps(
        network, inputs, "hirescam", target_layers=["middle", "last"], layer_fusion="product"
    )
    named = camcli.heatmaps(
        network, inputs, "hirescam", target_layers=["middle", "last"], combine="product"
    )
    torch.testing.assert_close(named, fused, rtol=1e-4, atol=1e-5)
    default = camcli.heatmaps(network, inputs, [TWO[0], "hirescam"], combine="product")
    expected = camcli.heatmaps(network, inputs, TWO, combine="product")
    torch.testing.assert_close(default, expected, rtol=1e-4, atol=1e-5)


def test_layer_names_of_a_part_may_have_dots_and_count_from_the_end() -> None:
    network, inputs = Attending().eval(), noise()
    actual = camcli.heatmaps(
        network, inputs, ["rollout", "Hi_Res-CAM@blocks.-1.norm1"], combine="product"
    )
    parts = follow(network, inputs, ["rollout", "hirescam@blocks.1.norm1"])
    torch.testing.assert_close(actual, parts.prod(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"contrast": [0, 2]},
        {"target": "counterfactual"},
        {"target": "probability"},
        {"aug_smooth": True},
        {"noise_smooth": 2},
    ],
)
def test_targets_and_smoothing_are_those_of_the_parts(options: dict[str, Any]) -> None:
    network, inputs = Staged().eval(), noise()
    actual = camcli.heatmaps(network, inputs, TWO, combine="product", targets=1, **options)
    parts = follow(network, inputs, TWO, targets=1, **options)
    torch.testing.assert_close(actual, parts.prod(0), rtol=1e-3, atol=1e-4)


def test_eigen_smooth_is_that_of_the_parts_that_are_named() -> None:
    network, inputs = Staged().eval(), noise()
    actual = camcli.heatmaps(network, inputs, TWO, combine="mean", eigen_smooth=True, targets=1)
    parts = follow(network, inputs, TWO, eigen_smooth=True, targets=1)
    torch.testing.assert_close(actual, parts.mean(0), rtol=1e-3, atol=1e-4)


def test_a_combination_of_a_value_has_two_signs() -> None:
    network, inputs = Staged(1).eval(), noise()
    terms = ["gradcam@middle", "hirescam@last"]
    maps = camcli.heatmaps(network, inputs, terms, combine="mean", outputs="value")
    assert maps.min() < 0 < maps.max()


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("best", {"best_for": "faith"}, "balanced, evidence, extent, not 'faith'"),
        ("gradcam", {"best_for": "extent"}, "--best-for extent belongs to --method best"),
        ("best", {"target_layers": "last"}, "Method best chooses the layers"),
        ("best", {"layer_fusion": "none"}, "leave --layer-fusion out"),
        ("best", {"layer_fusion": "refine"}, "leave --layer-fusion out"),
        ("best", {"eigen_smooth": True}, "leave --eigen-smooth out"),
        (["best", "gradcam"], {"combine": "mean"}, "'best' stands for other methods"),
        ("all", {}, "Method all is for the command line"),
        ("hirescam@last", {}, "--method hirescam --target-layers last"),
        ("hirescam@", {"combine": "mean"}, "'hirescam@' names no layer"),
        ("rise@last", {"combine": "mean"}, "rise looks at no layer"),
        (TWO, {"combine": "max"}, "mean or product, not 'max'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    method: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        camcli.heatmaps(Staged().eval(), noise(), method, **options)


@pytest.mark.parametrize("terms", [["hirescm@last"], ["hirescam@lst"]])
def test_an_unknown_name_in_a_part_is_told(terms: list[str]) -> None:
    with pytest.raises(UnknownName, match=r"hirescam|last"):
        camcli.heatmaps(Staged().eval(), noise(), terms, combine="product")


def test_values_are_refused_by_best_and_by_a_product() -> None:
    network, inputs = Staged(1).eval(), noise()
    with pytest.raises(UsageError, match="method best needs maps from 0 to 1"):
        camcli.heatmaps(network, inputs, "best", outputs="value")
    with pytest.raises(UsageError, match="product needs maps from 0 to 1"):
        camcli.heatmaps(network, inputs, TWO, combine="product", outputs="value")


def test_a_class_is_not_asked_of_what_shows_none() -> None:
    network, inputs = Staged().eval(), noise()
    terms = ["eigencam@middle", "fem@last"]
    maps = camcli.heatmaps(network, inputs, terms, combine="product", targets=[[0, 1], [2, 3]])
    assert torch.equal(maps[:, 0], maps[:, 1])
    with pytest.raises(
        MethodError, match=r"eigencam@middle x fem@last explains no particular class"
    ):
        camcli.heatmaps(network, inputs, terms, combine="product", target="counterfactual")


def test_a_model_without_classes_has_no_best_map() -> None:
    network = Staged().eval()
    network.num_classes = 0
    with pytest.raises(MethodError, match="no classifier, so best has no class"):
        camcli.heatmaps(network, noise(), "best")
