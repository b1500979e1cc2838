"""Models as people have them: compiled, wrapped, checkpointed, shared, traced, quantised."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.utils.checkpoint import checkpoint

import camcli
from camcli.engine.batch_context import BatchContext
from camcli.engine.targets import FixedCategories
from camcli.errors import LayerError, MethodError, ModelError
from camcli.models.inspection.layer_lookup import find_layer
from camcli.models.inspection.quirks import SWITCHES
from camcli.models.inspection.target_layers import measure_default_layer, survey_layers
from tests.networks import Staged, noise

Wrap = Callable[[nn.Module], nn.Module]

INPUTS = noise(2, 3, (64, 64))
# a model, a stage of it that people compile or wrap by itself, and a layer to name
MODELS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "cnn": (Staged, "last", "last.0"),
    "resnet": (
        partial(timm.create_model, "test_resnet", drop_rate=0.9),
        "layer4",
        "layer4.0.conv2",
    ),
    "vit": (
        partial(timm.create_model, "test_vit", img_size=64, depth=2, drop_rate=0.9),
        "blocks",
        "blocks.1.norm1",
    ),
}


def plain(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name][0]().eval()


# disguises: what people do to a model before they want it explained

compilations: list[int] = []


def _count(graph: Any, _: Any) -> Any:
    compilations.append(1)
    return graph.forward


compiled = partial(torch.compile, backend=_count)


@pytest.fixture
def compiler() -> Iterator[list[int]]:
    torch._dynamo.reset()
    compilations.clear()
    yield compilations
    torch._dynamo.reset()


def compile_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend=_count)
    return model


def compile_inside(model: nn.Module) -> nn.Module:
    model.forward = compiled(model.forward)  # type: ignore[method-assign]
    return model


def with_stage(wrap: Wrap, model: nn.Module) -> nn.Module:
    stage = next(stage for _, stage, _ in MODELS.values() if hasattr(model, stage))
    setattr(model, stage, wrap(model.get_submodule(stage)))
    return model


class Distributed(nn.parallel.DistributedDataParallel):
    """Other processes wait for it, so it is not run by one alone."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module

    def forward(self, *_: Any) -> Any:
        raise AssertionError("the wrapper was run")


def on_two_devices(module: nn.Module) -> nn.Module:
    wrapper = nn.DataParallel(module)
    wrapper.device_ids = [0, 1]
    wrapper.src_device_obj = torch.device("cuda:0")
    return wrapper


def checkpoint_blocks(model: nn.Module) -> nn.Module:
    model.set_grad_checkpointing()
    return model


# tracing takes a second: each way to compile once, and what they share beside the suite
COMPILED: list[Any] = [
    ("cnn", compiled),
    ("cnn", compile_in_place),
    ("cnn", compile_inside),
    pytest.param("cnn", partial(with_stage, compiled), marks=pytest.mark.slow),
    pytest.param("cnn", lambda m: nn.DataParallel(compiled(m)), marks=pytest.mark.slow),
    pytest.param("vit", compile_in_place, marks=pytest.mark.slow),
    ("vit", partial(with_stage, compiled)),
]
DISGUISES: list[tuple[str, Wrap]] = [
    (name, disguise)
    for name in ("resnet", "vit")
    for disguise in (
        nn.DataParallel,
        on_two_devices,
        partial(with_stage, on_two_devices),
        Distributed,
        checkpoint_blocks,
        nn.Module.train,
    )
]


def state(model: nn.Module) -> list[Any]:
    own = [
        {k: v for k, v in vars(m).items() if isinstance(v, bool | list)} for m in model.modules()
    ]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    tensors = [tensor.numpy().tobytes() for tensor in model.state_dict().values()]
    return [own, hooks, tensors, [p.requires_grad for p in model.parameters()]]


def assert_no_different(model: nn.Module, name: str) -> None:
    _, _, layer = MODELS[name]
    before = state(model)
    default = measure_default_layer(plain(name), (3, 64, 64))
    actual = measure_default_layer(model, (3, 64, 64))
    assert (actual.name, actual.layout) == (find_layer(model, default.name), default.layout)
    (expected,) = camcli.activations(plain(name), INPUTS).values()
    torch.testing.assert_close(camcli.activations(model, INPUTS), {actual.name: expected})
    for given in (layer, f"module.{layer}", f"_orig_mod.{layer}"):
        torch.testing.assert_close(
            camcli.heatmaps(model, INPUTS, target_layers=given),
            camcli.heatmaps(plain(name), INPUTS, target_layers=layer),
        )
    assert state(model) == before


@pytest.mark.parametrize(("name", "disguise"), DISGUISES)
def test_a_disguise_makes_no_difference(name: str, disguise: Wrap) -> None:
    assert_no_different(disguise(plain(name)), name)


@pytest.mark.parametrize(("name", "disguise"), COMPILED)
def test_compiled_code_makes_no_difference(name: str, disguise: Wrap, compiler: list[int]) -> None:
    model = disguise(plain(name))
    with torch.no_grad():
        # from now on compiled code would run, which ignores hooks
        logits = model(INPUTS)
        assert compiler == [1]
        assert_no_different(model, name)
        torch.testing.assert_close(model(INPUTS), logits)
        assert compiler == [1], "it was compiled once more"
        torch._dynamo.reset()
        model(INPUTS)
        assert compiler == [1, 1], "it is not compiled any more"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_model_is_compiled_still_when_it_raises(
    error: type[BaseException], compiler: list[int]
) -> None:
    model = compile_in_place(checkpoint_blocks(plain("resnet")))

    def fail(*_: Any) -> None:
        raise error("in the middle")

    before = state(model)
    with model.fc.register_forward_hook(fail), pytest.raises(error, match="in the middle"):
        camcli.heatmaps(model, INPUTS, target_layers="layer4")
    assert state(model) == before
    compiled(torch.sin)(torch.ones(1))
    assert compiler == [1]


def test_wrapped_layers_are_recognised_by_their_own_class() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), on_two_devices(nn.AvgPool2d(2)))
    actual = survey_layers(model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()]), (3, 16, 16))
    assert [layer.type for layer in actual.layers[1:3]] == ["AvgPool2d", "AvgPool2d"]
    # pooling is never the default
    assert actual.default and actual.default.name == "0"


class Switched(Staged):
    """Runs its last stage out of sight while one of its attributes is on."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.stem(x))
        on = any(getattr(self, name, False) for name in SWITCHES)
        x = checkpoint(self.last, x, use_reentrant=True) if on else self.last(x)
        return self.fc(self.pool(x).flatten(1))


@pytest.mark.parametrize("switch", SWITCHES)
def test_switches_are_off_meanwhile_and_as_they_were_afterwards(switch: str) -> None:
    model, given = Switched(), [True]
    expected = camcli.heatmaps(model, INPUTS)
    setattr(model, switch, given)
    torch.testing.assert_close(camcli.heatmaps(model, INPUTS), expected)
    assert getattr(model, switch) is given


class Checkpointing(Staged):
    """Checkpoints by itself, with no attribute that could be switched off."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.run = partial(checkpoint, use_reentrant=reentrant)
        self.drop = nn.Dropout(0.9)

    def forward(self, x: Tensor) -> Tensor:
        x = self.run(self.middle, self.run(self.stem, x))
        x = self.run(lambda x: self.drop(self.last(torch.relu(x))), x)
        return self.fc(self.pool(torch.relu(x)).flatten(1))


@pytest.mark.parametrize("layers", [["stem"], ["middle.0"], ["middle", "last.0"]])
def test_layers_that_run_again_in_the_backward_pass_are_left_as_found(layers: list[str]) -> None:
    model = Checkpointing(reentrant=False).train()
    before = state(model)
    torch.testing.assert_close(
        camcli.heatmaps(model, INPUTS, target_layers=layers),
        camcli.heatmaps(Staged(), INPUTS, target_layers=layers),
    )
    assert state(model) == before


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_where_no_gradient_comes_back_it_is_said() -> None:
    model = Checkpointing(reentrant=True)
    with pytest.raises(ModelError, match=r"No gradient passes through .*use_reentrant.*eigencam"):
        measure_default_layer(model, (3, 64, 64))
    with pytest.raises(MethodError, match=r"No gradient reaches 'last'.*eigencam"):
        camcli.heatmaps(model, INPUTS, target_layers="last")
    expected = camcli.heatmaps(Staged(), INPUTS, "eigencam", target_layers="last")
    heatmap = camcli.heatmaps(model, INPUTS, "eigencam", target_layers="last")
    torch.testing.assert_close(heatmap, expected)


class Mute(torch.autograd.Function):
    """Gives no gradient back at all, not even zeros, as quantised layers do."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, __: Tensor) -> None:
        return None


def test_a_layer_without_any_gradient_is_no_target() -> None:
    class Muted(Staged):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(Mute.apply(self.pool(self.last(self.middle(self.stem(x))))).flatten(1))

    with pytest.raises(LayerError, match="its output passes no gradient back"):
        measure_default_layer(Muted(), (3, 64, 64))
    with pytest.raises(MethodError, match=r"No gradient reaches 'last'.*eigencam"):
        camcli.heatmaps(Muted(), INPUTS, target_layers="last")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_half_precision_gives_the_same_picture(name: str, dtype: torch.dtype) -> None:
    expected = camcli.heatmaps(plain(name), INPUTS, targets=3)
    heatmap = camcli.heatmaps(plain(name).to(dtype), INPUTS, targets=3)
    assert heatmap.dtype == torch.float32
    assert torch.corrcoef(torch.stack([expected.flatten(), heatmap.flatten()]))[0, 1] > 0.995


# a layer that is used twice in one pass: the last use counts


class Twice(nn.Module):
    """Uses one layer twice, or it and a twin with the same weights once each."""

    shared = True

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.between = nn.Conv2d(3, 8, 3, 2, 1), between
        self.layer = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(inplace=True))
        self.twin = nn.Sequential(*self.layer)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        first = (self.layer if self.shared else self.twin)(x)
        return self.fc(self.layer(self.between(first, x)).mul_(2).mean((2, 3)))


# what happens between the two uses; the second need not depend on the first
BETWEEN: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda first, _: -first,
    # the first output is larger than the last
    lambda first, _: avg_pool2d(first, 2),
    lambda _, x: x.flip(-1),
]


# the one that turns the picture round is warned of
@pytest.mark.filterwarnings("ignore:.*no places of the picture:camcli.errors.CamvizWarning")
@pytest.mark.parametrize("between", BETWEEN)
def test_the_last_use_counts(between: Callable[[Tensor, Tensor], Tensor]) -> None:
    def list_seen() -> list[Any]:
        return [
            camcli.activations(model, INPUTS, "layer"),
            camcli.heatmaps(model, INPUTS, ["layercam", "eigencam"], target_layers="layer"),
            camcli.heatmaps(model, INPUTS, target_layers=["stem", "layer"]),
        ]

    model = Twice(between)
    actual = list_seen()
    model.shared = False
    torch.testing.assert_close(actual, list_seen())


@pytest.mark.parametrize("between", BETWEEN)
def test_the_last_use_is_replaced(between: Callable[[Tensor, Tensor], Tensor]) -> None:
    def rescore() -> Tensor:
        context = BatchContext(
            model, INPUTS, ["layer"], FixedCategories(torch.tensor([[1], [2]])), graph=False
        )
        maps = context.get("activations", "layer")[1] * torch.linspace(0, 2, 7).view(7, 1, 1, 1)
        assert context.get("is_tail_separable", "layer")
        return context.get("rescore", "layer")(lambda rows: maps[rows], 7, 1)

    model = Twice(between)
    scores = rescore()
    assert scores.unique().numel() == 7
    model.shared = False
    torch.testing.assert_close(scores, rescore())


def test_it_is_said_that_the_last_use_counts() -> None:
    said = "runs 2 times in a pass, and the last counts"
    module = Twice(BETWEEN[0])
    assert measure_default_layer(module, (3, 64, 64)).reason.endswith(f"; it {said}")
    classifier = camcli.load_model("torchvision/resnet18", pretrained=False, img_size=64)
    picture = INPUTS[0].abs().clamp(max=1)
    for layer, shared in (("layer4.1.relu", True), ("layer4.1.conv1", False)):
        (explanation,) = camcli.explain(classifier, picture, target_layers=[layer])
        assert (f"layer {layer!r} {said}" in explanation.warnings) is shared


# what has been made of a model


def test_torchscript_is_refused() -> None:
    with warnings.catch_warnings():
        # it has been deprecated
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(Staged())
        traced = torch.jit.trace(Staged().eval(), INPUTS)
    for model in (
        scripted,
        traced,
        nn.Sequential(OrderedDict(last=scripted)),
        nn.DataParallel(traced),
    ):
        for ask in (
            camcli.heatmaps,
            camcli.activations,
            partial(camcli.heatmaps, target_layers="last"),
            lambda model, _: survey_layers(model, (3, 64, 64)),
            lambda model, _: camcli.packed(model).__enter__(),
        ):
            with pytest.raises(ModelError, match=r"is TorchScript, .* the model it was made from"):
                ask(model, INPUTS)


def test_an_exported_program_is_refused() -> None:
    model = torch.export.export(Staged().eval(), (INPUTS,)).module()
    with pytest.raises(ModelError, match=r"is an exported program, .* the model it was made from"):
        camcli.heatmaps(model, INPUTS)


def test_a_traced_graph_of_layers_is_explained() -> None:
    graph = torch.fx.symbolic_trace(plain("cnn"))
    expected = camcli.heatmaps(Staged(), INPUTS, target_layers="last")
    torch.testing.assert_close(camcli.heatmaps(graph, INPUTS), expected)


@pytest.mark.parametrize(
    ("other", "kind"),
    [(lambda x: {"maps": x}, "dict"), (lambda x: x.int(), r"torch\.int32 tensor")],
)
def test_what_is_no_map_is_named(other: Callable[[Tensor], Any], kind: str) -> None:
    model = Staged()
    model.unheard = nn.Identity()
    model.unheard.register_forward_hook(lambda _, __, x: other(x))
    model.stem.register_forward_hook(lambda _, __, x: (model.unheard(x), x)[1])
    with pytest.raises(
        LayerError, match=f"'unheard' puts out a {kind}, which cannot be read as maps: choose"
    ):
        camcli.heatmaps(model, INPUTS, target_layers="unheard")
