"""What is explained of a class: values by hand, gradients, contrasts, one logit, callables."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple, get_args

import pytest
import torch
from torch import Tensor, nn

import camcli
import camcli.methods  # fills the registry
from camcli.engine.batch_context import BatchContext
from camcli.engine.targets import (
    SCORES,
    ContrastTarget,
    FixedCategories,
    TopKCategories,
    contrast,
    counterfactual,
    expand_class_logits,
    log_probability,
    logit,
    make_target,
    probability,
    rest,
)
from camcli.errors import MethodError, ModelError, UnknownName, UsageError
from camcli.models.inspection.target_layers import survey_layers
from camcli.models.outputs.logits import describe_output
from camcli.records import TargetName
from camcli.registry import METHODS, depends_on_category
from tests.networks import Staged, network_for, noise

# softmax gives 1/8, 2/8 and 5/8
LOGITS = torch.tensor([[1.0, 2.0, 5.0]]).log()
# sigmoid gives 3/4
YES = torch.tensor([[log(3.0)]])
OF_A_CLASS = [name for name in METHODS if depends_on_category(name)]

Function = Callable[[Tensor, Tensor], Tensor]


def only(categories: Any) -> Tensor:
    return torch.tensor([categories])


# values worked out by hand


@pytest.mark.parametrize(
    ("function", "of_five_eighths", "of_yes", "of_no"),
    [
        (logit, log(5), log(3), -log(3)),
        (probability, 5 / 8, 3 / 4, 1 / 4),
        (log_probability, log(5 / 8), log(3 / 4), log(1 / 4)),
        (rest, log(5) + log(5 / 8), log(3) + log(3 / 4), -log(3) + log(1 / 4)),
        (counterfactual, -log(5), -log(3), log(3)),
    ],
)
def test_values(function: Function, of_five_eighths: float, of_yes: float, of_no: float) -> None:
    assert function(LOGITS, only(2)).tolist() == pytest.approx([of_five_eighths])
    assert function(YES, only(1)).tolist() == pytest.approx([of_yes])
    assert function(YES, only(0)).tolist() == pytest.approx([of_no])


def test_a_contrast_takes_away_a_share_of_the_references_mean() -> None:
    actual = contrast(LOGITS, only(2), only([0, 1]))
    assert actual.item() == pytest.approx(log(5) - 0.6 * (log(1) + log(2)) / 2)
    alone = contrast(LOGITS, only(2), only([1]), strength=1.0)
    assert alone.item() == pytest.approx(log(5) - log(2))


def test_a_contrast_is_no_mean_weighted_by_softmax_as_grad_cams() -> None:
    # 1/8 and 2/8 of the softmax are a third and two thirds of the weight
    theirs = log(5) - 0.6 * (log(1) / 3 + log(2) * 2 / 3)
    assert contrast(LOGITS, only(2), only([0, 1])).item() != pytest.approx(theirs, rel=0.05)


def test_a_class_is_not_compared_with_itself() -> None:
    actual = contrast(LOGITS, only(2), only([2, 1]))
    assert actual.item() == pytest.approx(log(5) - 0.6 * log(2))
    assert contrast(LOGITS, only(2), only([2])).item() == pytest.approx(log(5))


def test_the_most_similar_classes_have_the_closest_logits() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.0, 5.5, -9.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    actual = ContrastTarget().references(logits, torch.tensor([1, 0]))
    assert actual.tolist() == [[3, 2, 0], [1, 2, 3]]
    assert ContrastTarget().references(logits[:, :2], torch.tensor([1, 0])).tolist() == [[0], [1]]
    assert ContrastTarget((4, 0)).references(logits, torch.tensor([1, 0])).tolist() == [[4, 0]] * 2


def test_huge_logits_overflow_no_target() -> None:
    logits = torch.tensor([[1000.0, -1000.0]])
    for function in SCORES.values():
        assert function(logits, only(1)).isfinite().all()
        assert function(logits[:, :1], only(0)).isfinite().all()


def test_every_name_means_a_target() -> None:
    assert [*SCORES, "contrast"] == list(get_args(TargetName))
    for name in get_args(TargetName):
        assert make_target(name).name == name


# gradients: Grad-CAM and HiResCAM are linear in the score's gradient


def every_class(method: str) -> Tensor:
    """The maps of all five classes.  -> [2 5 h w]"""
    classes = [list(range(5))] * 2
    return camcli.heatmaps(Staged(), noise(), method, target_layers="last", targets=classes)


def weight(weights: Tensor, maps: Tensor) -> Tensor:
    """Sums the classes' maps with weights [2 5].  -> [2 h w]"""
    return torch.einsum("bk,bkhw->bhw", weights, maps)


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_maps_are_those_of_the_targets_derivative_by_the_logits(method: str) -> None:
    maps, inputs = every_class(method), noise()
    p = Staged().eval()(inputs).softmax(1).detach()
    itself = torch.eye(5)[3].expand(2, -1)
    derivatives: dict[TargetName, Tensor] = {
        "logit": itself,
        "probability": p[:, 3:4] * (itself - p),
        "log-probability": itself - p,
        "rest": 2 * itself - p,
        "counterfactual": -itself,
    }
    assert set(derivatives) == set(SCORES)
    for name, weights in derivatives.items():
        heatmap = camcli.heatmaps(
            Staged(), inputs, method, target_layers="last", targets=3, target=name
        )
        torch.testing.assert_close(heatmap, weight(weights, maps))


def test_a_contrasts_map_is_a_difference_of_maps() -> None:
    maps = every_class("gradcam")
    options: dict[str, Any] = {"target_layers": "last", "targets": 3}
    heatmap = camcli.heatmaps(Staged(), noise(), contrast=[0, 4], **options)
    torch.testing.assert_close(heatmap, maps[:, 3] - 0.6 * (maps[:, 0] + maps[:, 4]) / 2)
    heatmap = camcli.heatmaps(Staged(), noise(), contrast=1, contrast_strength=1, **options)
    torch.testing.assert_close(heatmap, maps[:, 3] - maps[:, 1])
    # nothing is taken away
    heatmap = camcli.heatmaps(
        Staged(), noise(), target="contrast", contrast_strength=0.0, **options
    )
    torch.testing.assert_close(heatmap, maps[:, 3])


@pytest.mark.parametrize("method", OF_A_CLASS)
def test_all_that_a_method_asks_for_follows_the_target(method: str) -> None:
    """Each method explains the number that the target gives, and no other."""
    model, inputs = network_for(method), noise()
    expected = camcli.heatmaps(model, inputs, method, targets=[2, 3])

    def another(logits: Tensor, categories: Tensor) -> Tensor:
        return logit(logits, categories + 1)

    heatmap = camcli.heatmaps(model, inputs, method, targets=[1, 2], target=another)
    torch.testing.assert_close(heatmap, expected)
    contrasted = camcli.heatmaps(model, inputs, method, targets=[2, 3], contrast=0)
    assert not torch.allclose(contrasted, expected)


def test_a_contrast_that_is_left_to_the_logits_is_that_with_those_classes() -> None:
    inputs, targets = noise(4), [0, 1, 2, 3]
    options: dict[str, Any] = {"target_layers": "last", "aug_smooth": True}
    together = camcli.heatmaps(Staged(), inputs, target="contrast", targets=targets, **options)
    chosen = ContrastTarget().references(Staged().eval()(inputs), torch.tensor(targets)).tolist()
    assert len({*map(tuple, chosen)}) > 1
    for row, classes in enumerate(chosen):
        alone = camcli.heatmaps(
            Staged(), inputs[row : row + 1], contrast=classes, targets=row, **options
        )
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-6)


def test_altered_pictures_are_compared_with_the_same_classes() -> None:
    inputs, altered = noise(), noise(6, seed=2) * 20
    context = BatchContext(
        Staged(), inputs, ["last"], TopKCategories(), graph=False, target=ContrastTarget()
    )
    before = context.get("references")
    logits = Staged().eval()(altered)
    category = context.get("categories")[1].expand(6)
    expected = contrast(logits, category, before[1].expand(6, -1))
    own = ContrastTarget().references(logits, category)
    assert not torch.allclose(contrast(logits, category, own), expected)
    torch.testing.assert_close(context.get("score")(lambda rows: altered[rows], 6, 1), expected)
    assert torch.equal(context.with_inputs(altered[:2]).get("references"), before)


# a single logit: a no and a yes


class Single(Staged):
    """One logit, larger where the picture is bright."""

    def __init__(self, *, flat: bool = False) -> None:
        super().__init__(1)
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y[:, 0] if self.flat else y


@pytest.mark.parametrize("flat", [False, True])
def test_a_single_logit_has_two_sides_and_the_predicted_one_is_explained(flat: bool) -> None:
    model, inputs = Single(flat=flat), noise(6)
    logits = Staged(1).eval()(inputs).flatten()
    logits = logits - logits.median()
    model.fc.bias.data -= Staged(1).eval()(inputs).median()
    assert {bool(z > 0) for z in logits} == {True, False}
    options: dict[str, Any] = {"target_layers": "last"}
    both = camcli.heatmaps(model, inputs, targets=[[0, 1]] * 6, **options)
    torch.testing.assert_close(both[:, 0], -both[:, 1])
    predicted = (logits > 0).long()
    expected = torch.stack([both[row, side] for row, side in enumerate(predicted)])
    clear = logits != 0
    with pytest.warns(UserWarning, match=r'outputs="value" explains the number itself'):
        heatmap = camcli.heatmaps(model, inputs, **options)
    torch.testing.assert_close(heatmap[clear], expected[clear])
    against = camcli.heatmaps(model, inputs, targets=1, target="counterfactual", **options)
    torch.testing.assert_close(against, both[:, 0])
    with pytest.raises(UsageError, match=r"Category 2 is not in 0\.\.1"):
        camcli.heatmaps(model, inputs, targets=2, **options)


def test_the_predicted_side_comes_first() -> None:
    logits = torch.tensor([[-2.0], [3.0]])
    assert expand_class_logits(logits).tolist() == [[2.0, -2.0], [-3.0, 3.0]]
    assert TopKCategories(2).pick(logits).tolist() == [[0, 1], [1, 0]]
    assert FixedCategories(torch.tensor([[1], [0]])).pick(logits).tolist() == [[1], [0]]
    with pytest.raises(UsageError, match="top-k 3 is more than the model's 2 classes"):
        TopKCategories(3).pick(logits)


def test_a_single_logit_is_in_contrast_to_none() -> None:
    for given in ({"target": "contrast"}, {"contrast": 0}):
        with pytest.raises(UsageError, match=r"single logit: .*counterfactual"):
            camcli.heatmaps(Single(), noise(), target_layers="last", **given)


# functions of one's own, and mistakes


class Sum:
    def __call__(self, logits: Tensor, _: Tensor) -> Tensor:
        return logits.sum(1)


def test_any_function_of_the_logits_is_a_target() -> None:
    heatmap = camcli.heatmaps(Staged(), noise(), target_layers="last", target=Sum())
    torch.testing.assert_close(heatmap, every_class("gradcam").sum(1))
    assert (make_target(Sum()).name, make_target(rest).name) == ("Sum", "rest")


@pytest.mark.parametrize(
    ("wrong", "given"),
    [
        (lambda logits, _: logits, r"\[2, 5\] for 2 pictures"),
        (lambda logits, _: logits.sum(), r"\[\] for 2 pictures"),
        (lambda *_: 3.0, "float for 2 pictures"),
    ],
)
def test_a_function_returns_one_number_a_picture(wrong: Function, given: str) -> None:
    with pytest.raises(UsageError, match=rf"returned {given}: a target takes logits \[b n\]"):
        camcli.heatmaps(Staged(), noise(), target_layers="last", target=wrong)


def test_wrong_targets_are_reported() -> None:
    def ask(method: Any = "gradcam", **given: Any) -> None:
        camcli.heatmaps(Staged(), noise(), method, target_layers="last", **given)

    with pytest.raises(UnknownName, match=r"'counterfactal'\. Closest: 'counterfactual'"):
        ask(target="counterfactal")
    with pytest.raises(UsageError, match="a target itself"):
        ask(target="rest", contrast=3)
    with pytest.raises(UsageError, match=r"Category 5 is not in 0\.\.4"):
        ask(contrast=[1, 5])
    for strength in (-0.1, float("nan")):
        with pytest.raises(UsageError, match="strength is a finite number of 0 or more"):
            ask(contrast=1, contrast_strength=strength)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_A_CLASS])
@pytest.mark.parametrize("target", ["contrast", "counterfactual"])
def test_a_method_that_shows_no_class_is_not_asked_about_one(name: str, target: str) -> None:
    message = f"{target} asks about a class, and {name} explains no particular class"
    with pytest.raises(MethodError, match=message):
        camcli.heatmaps(Staged(), noise(), ["gradcam", name], target=target)


# models that return more than logits


class Outputs(NamedTuple):
    features: Tensor
    logits: Tensor


@dataclass
class Answer:
    logits: Tensor


class Packing(Staged):
    def __init__(self, pack: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, x: Tensor) -> Any:
        features = self.last(torch.relu_(self.middle(self.stem(x))))
        logits = self.fc(self.pool(torch.relu_(features)).flatten(1))
        return self.pack(features, logits)


PACKS: list[tuple[Callable[[Tensor, Tensor], Any], str | int]] = [
    (lambda _, y: {"logits": y}, "logits"),
    (lambda f, y: OrderedDict(features=f, logits=y), "logits"),
    (lambda _, y: {0: y}, "0"),
    (lambda f, y: (f, y), 1),
    (lambda f, y: [f, y], "-1"),
    (Outputs, "logits"),
    (Outputs, 1),
    (lambda _, y: Answer(y), "logits"),
]


@pytest.mark.parametrize(("pack", "key"), PACKS)
@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel])
def test_a_key_finds_the_logits(
    pack: Callable[[Tensor, Tensor], Any], key: str | int, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    model, inputs = wrap(Packing(pack)), noise()
    methods = ["gradcam", "ablationcam", "scorecam"]
    expected = camcli.heatmaps(Staged(), inputs, methods)
    heatmap = camcli.heatmaps(model, inputs, methods, output_key=key)
    torch.testing.assert_close(heatmap, expected)
    (layer,) = camcli.activations(model, inputs, output_key=key)
    assert layer == "last"
    assert not any(m._forward_hooks for m in model.modules())


def test_without_a_key_it_is_said_what_the_model_returned() -> None:
    for layer in ("last", None):
        with pytest.raises(
            ModelError,
            match=r"a dict with 'scores': \[\d, 5\], 'loss': float, .*--output-key",
        ):
            model = Packing(lambda _, y: {"scores": y, "loss": 0.5})
            camcli.heatmaps(model, noise(), target_layers=layer)
    pair = Packing(lambda f, y: (f, y))
    message = r"a tuple with 0: \[2, 16, 6, 8\], 1: \[2, 5\], not a tensor of logits"
    with pytest.raises(ModelError, match=message):
        camcli.heatmaps(pair, noise(), target_layers="last")
    # a method that asks no class needs no logits
    maps = camcli.heatmaps(pair, noise(), "eigencam", target_layers="last")
    assert maps.shape == (2, 6, 8)


@pytest.mark.parametrize(
    "pack",
    [
        lambda f, y: {"logits": y, "loss": 0.5, "hidden_states": (f,)},
        Outputs,
        lambda _, y: Answer(y),
        lambda _, y: (y,),
        lambda _, y: {"out": y},
    ],
)
def test_lone_logits_are_taken_without_a_key(pack: Callable[[Tensor, Tensor], Any]) -> None:
    expected = camcli.heatmaps(Staged(), noise(), ["gradcam", "scorecam"])
    torch.testing.assert_close(
        camcli.heatmaps(Packing(pack), noise(), ["gradcam", "scorecam"]), expected
    )


@pytest.mark.parametrize(
    ("pack", "key"),
    [
        (lambda f, y: {"heads": {"age": f, "race": y}}, "heads.race"),
        (lambda f, y: ({"heads": [f, Answer(y)]}, f), "0.heads.-1.logits"),
        (lambda f, y: {"heads": {"race": f}, "heads.race": y}, "heads.race"),
        (lambda f, y: {"a.b": {"c.d": y, "c": f}}, "a.b.c.d"),
    ],
)
def test_a_key_reaches_any_depth(pack: Callable[[Tensor, Tensor], Any], key: str) -> None:
    heatmap = camcli.heatmaps(Packing(pack), noise(), output_key=key)
    torch.testing.assert_close(heatmap, camcli.heatmaps(Staged(), noise()))


@pytest.mark.parametrize("layer", ["last", None])
@pytest.mark.parametrize(
    ("pack", "key", "message"),
    [
        (
            lambda _, y: {"logits": y},
            "logit",
            r"a dict with 'logits': \[\d, 5\], and nothing under",
        ),
        (lambda f, y: (f, y), 2, "and nothing under the output key 2"),
        (lambda f, y: (f, y), "logits", "and nothing under the output key 'logits'"),
        (lambda _, y: y, 0, r"a tensor \[\d, 5\], of which output key 0 names no part"),
        (lambda *_: None, 0, "a NoneType, and nothing"),
    ],
)
def test_a_key_that_is_not_there_is_reported(
    pack: Callable[[Tensor, Tensor], Any], key: str | int, message: str, layer: str | None
) -> None:
    model = Packing(pack)
    with pytest.raises(ModelError, match=message):
        camcli.heatmaps(model, noise(), target_layers=layer, output_key=key)
    assert not any(m._forward_hooks for m in model.modules())


def test_the_default_layer_is_found_by_the_logits_that_are_meant() -> None:
    class TwoOutputs(Staged):
        def forward(self, x: Tensor) -> Any:
            middle = self.middle(self.stem(x))
            return self.last(middle).mean((2, 3)), middle.mean((2, 3))

    model = TwoOutputs()
    layers = [list(camcli.activations(model, noise(), output_key=key)) for key in (0, 1, 0)]
    assert layers == [["last"], ["middle"], ["last"]]
    assert survey_layers(model, (3, 48, 64)).default


def test_a_long_output_is_described_in_short() -> None:
    many = {f"p{number}": torch.zeros(1, number) for number in range(12)}
    assert describe_output(many).endswith("'p7': [1, 7] and 4 more")
    assert describe_output(()) == "a tuple with nothing in it"


@pytest.mark.parametrize("name", ["gradcam", "ablationcam", "fullgrad"])
def test_outputs_of_a_multi_label_or_regression_head_stand_alone(name: str) -> None:
    """An output is explained by itself: what is not normalised together does not meet."""
    plain, other = Staged().eval(), Staged().eval()
    with torch.no_grad():
        other.fc.weight[2] *= 50
    maps = [
        camcli.heatmaps(m, noise(), name, target_layers="last", targets=1) for m in (plain, other)
    ]
    torch.testing.assert_close(*maps)
    softmax = [
        camcli.heatmaps(m, noise(), name, target_layers="last", targets=1, target="probability")
        for m in (plain, other)
    ]
    assert (softmax[0] - softmax[1]).abs().max() > 1e-3 * softmax[0].abs().max()
