"""The six laws of the engine, each with its tests."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.engine import hooks, layer_selection
from camcli.engine.answer_request import make_context
from camcli.engine.batch_context import BatchContext
from camcli.engine.device.oom_chunks import run_in_chunks
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.hooks import record
from camcli.engine.targets import FixedCategories, TopKCategories
from camcli.errors import LayerError, ModelError
from camcli.models.acceleration.memory_format import trust_channels_last
from camcli.registry import METHODS, depends_on_category
from tests.networks import Attending, Counting, Staged, Straight, network_for, noise

LAYER = "last"


@contextmanager
def spy(module: nn.Module, see: Callable[[Any, Any], None]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _, args, output: see(args[0], output))
    try:
        yield
    finally:
        handle.remove()


# law 1: gradients begin at the target layer


def test_nothing_below_the_target_layer_is_recorded() -> None:
    model, seen = Staged().eval(), {}
    with (
        spy(model.middle[0], lambda _, out: seen.update(below=out.requires_grad)),
        spy(model.pool, lambda _, out: seen.update(behind=out.requires_grad)),
    ):
        recording = record(model, noise(), [LAYER], graph=True)
    assert seen == {"below": False, "behind": True}
    assert recording.outputs[LAYER].is_leaf
    assert recording.logits.requires_grad


@pytest.mark.usefixtures("folds_at_once")
def test_gradients_of_folded_passes_equal_those_of_plain_autograd() -> None:
    test_gradients_equal_those_of_plain_autograd_at_several_layers()


def test_gradients_equal_those_of_plain_autograd_at_several_layers() -> None:
    model, inputs = Staged().eval(), noise()
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., Tensor]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            kept[name] = output
            output.retain_grad()
            return output.clone()

        return hook

    for name in ("middle", LAYER):
        model.get_submodule(name).register_forward_hook(keep(name))
    model(inputs)[:, 3].sum().backward()
    context = BatchContext(
        Staged(), inputs, ["middle", LAYER], FixedCategories(torch.tensor([[3], [3]])), graph=True
    )
    for name, output in kept.items():
        assert output.grad is not None
        torch.testing.assert_close(context.get("gradients", name), output.grad)


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", METHODS)
def test_it_works_in_every_gradient_mode(name: str, mode: Callable[[], Any]) -> None:
    with mode():
        before = torch.is_grad_enabled()
        # in inference mode, its parameters are inference tensors
        model, inputs = network_for(name), noise()
        heatmap = camcli.heatmaps(model, inputs, name, target_layers=LAYER)
        assert torch.is_grad_enabled() is before
    assert not heatmap.is_inference()
    assert not heatmap.requires_grad
    torch.testing.assert_close(heatmap, _explain_by(name))


@cache
def _explain_by(name: str) -> Tensor:
    return camcli.heatmaps(network_for(name), noise(), name, target_layers=LAYER)


@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_nobodys_gradients_are_touched(method: str) -> None:
    model = Staged()
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    inputs = noise().requires_grad_()
    camcli.heatmaps(model, inputs, method, target_layers=LAYER)
    assert inputs.grad is None
    assert model.fc.weight.grad.eq(1).all()
    assert all(p.grad is None for n, p in model.named_parameters() if n != "fc.weight")


def test_frozen_weights_make_no_difference() -> None:
    expected = camcli.heatmaps(Staged(), noise(), target_layers=LAYER)
    frozen = Staged().requires_grad_(False)
    torch.testing.assert_close(camcli.heatmaps(frozen, noise(), target_layers=LAYER), expected)
    assert not any(p.requires_grad for p in frozen.parameters())


def test_every_hook_must_have_fired() -> None:
    model = Staged()
    model.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(LayerError, match="'unused' was not called"):
        camcli.heatmaps(model, noise(), target_layers=["last", "unused"])


# law 2: ablations run only what lies behind the layer


@pytest.mark.parametrize(("model", "alone"), [(Staged(), True), (Counting(), False)])
def test_rescoring_runs_the_tail_alone_where_the_model_allows_it(
    model: Staged, alone: bool
) -> None:
    model.eval()
    inputs = noise()
    context = BatchContext(
        model, inputs, [LAYER], FixedCategories(torch.tensor([[1], [2]])), graph=False, chunk=4
    )
    maps = context.get("activations", LAYER)[1] * torch.rand(10, 1, 6, 8)
    assert context.get("is_tail_separable", LAYER) is alone

    prefix_sizes: list[int] = []
    with spy(model.stem[0], lambda x, _: prefix_sizes.append(len(x))):
        scores = context.get("rescore", LAYER)(lambda rows: maps[rows], 10, 1)
    # one pass to remember the prefix of this picture
    assert prefix_sizes == ([1] if alone else [4, 4, 2])

    behind = torch.relu(maps) if isinstance(model, Staged) and alone else maps
    expected = model.fc(behind.mean((2, 3)))[:, 2]
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(
    ("chunk", "threads", "sizes"),
    [(32, 1, [8, 8, 4]), (32, 4, [16, 4]), (3, 4, [3] * 6 + [2]), (32, 16, [20])],
)
def test_of_altered_pictures_a_core_takes_four_at_a_time(
    chunk: int, threads: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = Staged().eval()
    context = BatchContext(
        model, noise(), [], FixedCategories(torch.tensor([[1], [2]])), graph=False, chunk=chunk
    )
    score, images, seen = context.get("score"), noise(20, seed=2), []
    with spy(model, lambda x, _: seen.append(len(x))):
        scores = score(lambda rows: images[rows], 20, 1)
    assert seen == sizes
    with torch.no_grad():
        torch.testing.assert_close(scores, model(images)[:, 2])


class Doubling(Staged):
    """It doubles in place what it adds behind its last stage, and each rerun would once more."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.stem(x))
        x.mul_(2)
        return self.fc(self.pool(self.last(x)).flatten(1)) + x.mean((1, 2, 3))[:, None]


class Shared(Staged):
    """Its last stage is used again behind itself, and its ReLU before and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Sequential(nn.Conv2d(12, 12, 3, 1, 1), nn.BatchNorm2d(12))
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.middle(self.stem(x)))
        x = x + self.last(x)
        return self.fc(self.pool(self.relu(self.last(x))).flatten(1))


@pytest.mark.parametrize(
    "model", [Doubling(), Shared(), Attending()], ids=lambda m: type(m).__name__
)
def test_what_stands_in_front_of_a_layer_is_remembered_only_where_that_changes_nothing(
    model: Staged,
) -> None:
    model.eval()
    context = BatchContext(
        model, noise(), [LAYER], FixedCategories(torch.tensor([[1], [2]])), graph=False
    )
    maps = context.get("activations", LAYER)[1] * torch.linspace(0, 2, 7).view(7, 1, 1, 1)
    runs: list[int] = []
    with spy(model.stem[0], lambda x, _: runs.append(len(x))):
        scores = context.get("rescore", LAYER)(lambda rows: maps[rows], 7, 1)
    remembers = not isinstance(model, Doubling)
    assert bool(context.get("prefix_by_row", LAYER)(1)) is remembers
    if remembers:
        assert runs == [1, 1]  # a pass of the first picture for the dry run, and one of its own
    assert "forward" not in vars(model.stem)

    seen = iter([*[None] * (context.get("recording").calls[LAYER] - 1), maps])

    def replace(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        other = next(seen)
        return output if other is None else other

    with model.last.register_forward_hook(replace), torch.no_grad():
        expected = model(noise()[1:].expand(7, -1, -1, -1))[:, 2]
    torch.testing.assert_close(scores, expected)


def test_unchanged_maps_give_the_score_itself() -> None:
    context = BatchContext(Staged(), noise(), [LAYER], TopKCategories(), graph=False)
    maps = context.get("activations", LAYER)
    for owner in range(2):
        scores = context.get("rescore", LAYER)(partial(_row, maps[owner]), 1, owner)
        torch.testing.assert_close(scores[0], context.get("scores")[owner])


def test_unchanged_maps_give_the_logits_themselves() -> None:
    context = BatchContext(Staged(), noise(), [LAYER], TopKCategories(), graph=False)
    maps = context.get("activations", LAYER)
    for owner in range(2):
        actual = context.get("recompute_logits", LAYER)(partial(_row, maps[owner]), 1, owner)
        torch.testing.assert_close(actual[0], context.get("logits")[owner])


def test_scores_of_altered_inputs_come_in_chunks() -> None:
    model, images = Staged().eval(), noise(7)
    context = BatchContext(
        model, images, [LAYER], FixedCategories(torch.full((7, 1), 3)), graph=False, chunk=3
    )
    sizes: list[int] = []
    with spy(model, lambda x, _: sizes.append(len(x))):
        scores = context.get("score")(lambda rows: images[rows], 7, 0)
    assert sizes == [7, 3, 3, 1]  # the first is the pass that everything shares
    torch.testing.assert_close(scores, model(images)[:, 3])


@pytest.mark.parametrize(
    "name", [name for name in METHODS if {"score", "rescore"} & set(METHODS[name].evidence)]
)
def test_altered_pictures_pass_once_for_all_categories(name: str) -> None:
    model, inputs, options = Staged(), noise(), {"masks": 6} if name == "rise" else {}
    camcli.activations(model, inputs, LAYER)  # where its places lie is looked for once
    together: list[int] = []
    alone: list[int] = []
    trust_channels_last(model)
    # how its output is read is measured once for a model
    camcli.heatmaps(model, inputs, target_layers=LAYER)
    with spy(model, lambda x, _: together.append(len(x))):
        heatmap = camcli.heatmaps(
            model, inputs, name, target_layers=LAYER, targets=[[1, 4, 2]] * 2, set=options
        )
    for slot, category in enumerate([1, 4, 2]):
        alone.clear()
        with spy(model, lambda x, _: alone.append(len(x))):
            expected = camcli.heatmaps(
                model, inputs, name, target_layers=LAYER, targets=category, set=options
            )
        torch.testing.assert_close(heatmap[:, slot], expected, rtol=1e-4, atol=1e-6)
        assert together == alone


def test_methods_are_given_their_own_pictures_alone() -> None:
    model, inputs = Staged(), noise()
    layers, names = [LAYER, "middle"], ["scorecam", "iscam", "ablationcam"]
    together = camcli.heatmaps(model, inputs, names, target_layers=layers, layer_fusion="none")
    for name in names:
        for layer in layers:
            expected = camcli.heatmaps(model, inputs, name, target_layers=layer)
            torch.testing.assert_close(together[name][layer], expected, rtol=1e-4, atol=1e-6)


def _row(maps: Tensor, _: slice) -> Tensor:
    return maps[None]


# law 3: the model is left as it was found


def _snapshot(model: nn.Module) -> list[Any]:
    modules = [
        (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()
    ]
    parameters = [(p.requires_grad, p.grad is None, p.detach().clone()) for p in model.parameters()]
    return [modules, parameters, [b.clone() for b in model.buffers()]]


def _mix(method: str) -> Staged:
    model = network_for(method).train()
    model.middle.eval()
    model.stem[0].weight.requires_grad_(False)
    return model


def _assert_same(before: list[Any], after: list[Any]) -> None:
    assert before[0] == after[0]
    for (grad, none, value), (grad2, none2, value2) in zip(before[1], after[1], strict=True):
        assert (grad, none) == (grad2, none2)
        assert torch.equal(value, value2)
    assert all(torch.equal(a, b) for a, b in zip(before[2], after[2], strict=True))


@pytest.mark.usefixtures("folds_at_once")
@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_left_as_found_by_folded_passes(name: str) -> None:
    test_the_model_is_left_as_found(name)


@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_left_as_found(name: str) -> None:
    model = _mix(name)
    before, random = _snapshot(model), torch.get_rng_state()
    camcli.heatmaps(model, noise(), name)
    _assert_same(before, _snapshot(model))
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_the_model_is_left_as_found_when_it_raises(method: str, error: type[BaseException]) -> None:
    model = _mix(method)

    def fail(*_: Any) -> None:
        raise error("in the middle")

    handle = model.fc.register_forward_hook(fail)
    before = _snapshot(model)
    with pytest.raises(error, match="in the middle"):
        camcli.heatmaps(model, noise(), method, target_layers=LAYER)
    _assert_same(before, _snapshot(model))
    assert torch.is_grad_enabled()
    handle.remove()


# law 4: channels_last and inference mode where no gradient is asked for; float32 maps


@pytest.mark.parametrize(("method", "inference"), [("gradcam", False), ("eigencam", True)])
def test_inference_mode_and_channels_last(method: str, inference: bool) -> None:
    model, seen = Staged(), {}

    def see(x: Tensor, _: Tensor) -> None:
        seen["inference"] = torch.is_inference_mode_enabled()
        seen["channels_last"] = x.is_contiguous(memory_format=torch.channels_last)

    with spy(model, see):
        camcli.heatmaps(model, noise(), method, target_layers=LAYER)
    assert seen == {"inference": inference, "channels_last": True}


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_weights_give_float32_maps(name: str) -> None:
    expected = camcli.heatmaps(network_for(name), noise(), name, target_layers=LAYER, targets=2)
    half = network_for(name).to(torch.bfloat16)
    heatmap = camcli.heatmaps(half, noise(), name, target_layers=LAYER, targets=2)
    assert heatmap.dtype == torch.float32
    both = torch.stack([expected.flatten(), heatmap.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.98


# law 5: batch equals single


@pytest.mark.usefixtures("folds_at_once")
@pytest.mark.parametrize("name", METHODS)
def test_batch_equals_single_where_passes_are_folded(name: str) -> None:
    test_batch_equals_single(name, {})


@pytest.mark.parametrize("options", [{}, {"aug_smooth": True}, {"noise_smooth": 2}], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_batch_equals_single(name: str, options: dict[str, Any]) -> None:
    model, inputs, targets = network_for(name), noise(4), [[0, 1], [4, 2], [3, 0], [1, 1]]
    inputs[2] *= 50
    together = camcli.heatmaps(model, inputs, name, targets=targets, target_layers=LAYER, **options)
    # smoothing asks for many passes more
    for row in (0, 2) if options else range(4):
        alone = camcli.heatmaps(
            model,
            inputs[row : row + 1],
            name,
            targets=targets[row : row + 1],
            target_layers=LAYER,
            **options,
        )
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)
    moved = not torch.allclose(together[:, 0], together[:, 1])
    assert moved is depends_on_category(name)


# what no method asks for is not kept


def test_heads_are_watched_where_cam_asks_for_them() -> None:
    network = Straight()
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    for method, watched in (("gradcam", False), ("cam", True)):
        request = ExplainRequest((method,), ("last",))
        context = make_context(
            network, noise(), FixedCategories(torch.tensor([[1], [2]])), request, graph=True
        )
        with torch.no_grad():
            seen = context.get("recording").head_inputs
        assert [m for m, _ in seen] == (linear if watched else [])


# law 6: batches and chunks halve when memory runs out


def test_chunks_halve_and_go_on() -> None:
    tried: list[tuple[int, int]] = []

    def work(rows: slice) -> list[int]:
        tried.append((rows.start, rows.stop))
        if rows.stop - rows.start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(rows.start, rows.stop))

    assert list(chain.from_iterable(run_in_chunks(work, 11, 8))) == list(range(11))
    assert tried == [(0, 8), (0, 4), (0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 11)]


def test_one_row_that_does_not_fit_is_an_error_and_so_is_any_other() -> None:
    def full(_: slice) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def broken(rows: slice) -> None:
        raise RuntimeError(f"another reason at {rows}")

    with pytest.raises(torch.OutOfMemoryError):
        run_in_chunks(full, 4, 4)
    with pytest.raises(RuntimeError, match=r"another reason at slice\(0, 4"):
        run_in_chunks(broken, 4, 4)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_every_word_for_a_full_memory_is_understood(error: Exception) -> None:
    def full(rows: slice) -> int:
        if rows.stop - rows.start > 1:
            raise error
        return rows.start

    assert run_in_chunks(full, 2, 2) == [0, 1]


def test_a_batch_that_does_not_fit_is_explained_in_halves() -> None:
    model, inputs, targets = Staged(), noise(5), [4, 3, 2, 1, 0]
    expected = camcli.heatmaps(model, inputs, target_layers=LAYER, targets=targets)

    def fill(_: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(fill)
    heatmap = camcli.heatmaps(model, inputs, target_layers=LAYER, targets=targets)
    torch.testing.assert_close(heatmap, expected)


# what several methods share

# evidence that alters inputs or outputs, differentiates twice, or does not fuse attention
PASSES_OF_ITS_OWN = {
    "score",
    "rescore",
    "gradients_at",
    "curvature",
    "token_grid",
    "guided_gradients",
    "full_gradients",
    "recompute_logits",
}


@pytest.mark.parametrize("layers", [["last"], ["middle", "last"]], ids=["one", "two"])
def test_methods_share_one_forward_pass_and_one_backward_pass_a_category(
    layers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, forwards, backwards = Straight(), [], []
    trust_channels_last(model)
    # how its output is read is measured once for a model
    camcli.heatmaps(model, noise(), target_layers=layers)
    model.register_forward_hook(lambda *_: forwards.append(1))
    plain = torch.autograd.grad

    def count(*args: Any, **options: Any) -> Any:
        backwards.append(1)
        return plain(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", count)
    sharing = [m for m in METHODS if not PASSES_OF_ITS_OWN & set(METHODS[m].evidence)]
    methods = [m for m in sharing if m != "cam" or layers == ["last"]]
    options: dict[str, Any] = {"target_layers": layers, "targets": [[0, 1, 2], [2, 3, 4]]}
    heatmap = camcli.heatmaps(model, noise(), methods, **options)
    assert (len(forwards), len(backwards)) == (1, 3)
    for name in methods:
        alone = camcli.heatmaps(model, noise(), name, **options)
        torch.testing.assert_close(heatmap[name], alone)


def test_without_gradient_methods_there_is_no_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.autograd, "grad", lambda *_: pytest.fail("a backward pass"))
    camcli.heatmaps(Staged(), noise(), ["eigencam", "randomcam"], target_layers=LAYER)


def test_a_model_that_returns_something_else_is_named() -> None:
    class ScoresAndLoss(Staged):
        def forward(self, x: Tensor) -> Any:
            return {"scores": super().forward(x), "loss": 0.0}

    with pytest.raises(ModelError, match="returned a dict"):
        camcli.heatmaps(ScoresAndLoss(), noise(), target_layers=LAYER)
    with pytest.raises(ModelError, match=r"shape \[2, 16, 6, 8\]"):
        hooks.check_logits(torch.zeros(2, 16, 6, 8))
    assert hooks.check_logits(torch.zeros(2, dtype=torch.float16)).shape == (2, 1)
    assert hooks.check_logits(torch.zeros(2, 7, 1, 1)).shape == (2, 7)


class Pair(NamedTuple):
    scale: float
    maps: Tensor


class Packed(nn.Module):
    """Its only layer packs its maps in a container."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.trunk = Staged().stem
        self.trunk.register_forward_hook(lambda _, __, maps: pack(maps))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        (maps,) = (part for part in self.trunk(x) if isinstance(part, Tensor))
        return self.fc(maps.mean((2, 3)))


@pytest.mark.parametrize("pack", [lambda m: (2.0, m), lambda m: [m], partial(Pair, 2.0)])
def test_maps_are_found_in_what_a_layer_packs_them_in(pack: Callable[[Tensor], Any]) -> None:
    model = Packed(pack)
    with torch.no_grad():
        maps = Staged().eval().stem(noise())
    torch.testing.assert_close(camcli.activations(model, noise()), {"trunk": maps})
    expected = (model.fc.weight[3, :, None, None] * maps).sum(1) / maps[0, 0].numel()
    heatmap = camcli.heatmaps(model, noise(), "hirescam", target_layers="trunk", targets=3)
    torch.testing.assert_close(heatmap, expected.detach())


def test_the_default_layer_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain = layer_selection.measure_default_layer

    def count(*args: Any) -> Any:
        calls.append(1)
        return plain(*args)

    monkeypatch.setattr(layer_selection, "measure_default_layer", count)
    model = Staged()
    for _ in range(3):
        camcli.heatmaps(model, noise())
    assert len(calls) == 1


@pytest.mark.parametrize("name", METHODS)
def test_nothing_of_a_batch_outlives_it(name: str) -> None:
    model = network_for(name)
    options = {"masks": 6} if name == "rise" else {}

    def alive() -> int:
        camcli.heatmaps(model, noise(1), name, noise_smooth=2, set=options)
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    alive()
    gc.collect()
    gc.disable()
    try:
        # what only the collector would free fills a GPU before it comes
        assert alive() == alive()
    finally:
        gc.enable()
