"""Several threads explain one model, or models that share something, or others side by side."""

import asyncio
import copy
import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import camcli
from camcli.errors import ModelError
from camcli.models.load import Classifier
from camcli.models.state.model_lock import NestedCall
from tests.networks import Attending, Staged, noise
from tests.tools.threads import (
    METHODS,
    MODES,
    PATIENCE,
    eager_switching,
    model_in,
    side_by_side,
    state_of,
    wrong_maps,
)

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no process")


@pytest.fixture(autouse=True)
def _one_core() -> Iterator[None]:
    # of another number of threads sums are rounded otherwise
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def explain_model(model: nn.Module, **options: Any) -> Tensor:
    actual: Tensor = camcli.heatmaps(model, noise(), **{"targets": 1, **options})
    return actual


class Paused:
    """Stops a model in the middle of its next pass, until it may go on."""

    def __init__(self, layer: nn.Module, when: Callable[[], bool] = lambda: True) -> None:
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()
        self.when, self._handle = when, layer.register_forward_hook(self._pause)

    def _pause(self, *_: object) -> None:
        if not self.when():
            return
        self._handle.remove()
        self.has_begun.set()
        assert self.may_go_on.wait(PATIENCE)


def begin(call: Any) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def has_ended(thread: threading.Thread) -> bool:
    thread.join(PATIENCE)
    return not thread.is_alive()


# ---------------------------------------------------------------- one model, several threads


# all of them: `python -m tests.tools.threads`
PAIRS = [(m, mode) for m in METHODS for mode in MODES if m in ("gradcam", "gradattention")]
PAIRS += [(m, "training") for m in METHODS if m not in ("gradcam", "gradattention")]


@pytest.mark.parametrize(("method", "mode"), PAIRS)
def test_maps_are_those_made_alone_and_the_model_is_left_as_found(method: str, mode: str) -> None:
    assert wrong_maps(model_in(mode, method), method, mode, threads=4, calls=2) == (0, True)


@pytest.mark.usefixtures("folds_at_once")
@pytest.mark.parametrize("method", ["gradcam", "eigencam", "scorecam"])
@pytest.mark.parametrize("mode", MODES)
def test_folded_maps_are_those_made_alone_and_the_model_is_left_as_found(
    method: str, mode: str
) -> None:
    assert wrong_maps(model_in(mode, method), method, mode, threads=4, calls=2) == (0, True)


def test_several_methods_activations_and_layers_at_once() -> None:
    model = Staged()
    calls = [
        lambda: camcli.heatmaps(model, noise(), ["gradcam", "eigencam"], targets=1)["gradcam"],
        lambda: camcli.activations(model, noise())["last"],
        lambda: explain_model(model, target_layers=["middle", "last"]),
        lambda: explain_model(model, method="occlusion"),
    ]
    expected = [call() for call in calls]
    with eager_switching():
        actual = side_by_side(calls)
    assert all(map(torch.equal, actual, expected))


class Carrying(Staged):
    """Keeps something from one part of its forward to another, as users' own models do."""

    def forward(self, x: Tensor) -> Tensor:
        self.given = x
        out = super().forward(x)
        assert self.given is x
        return out + self.given.mean((1, 2, 3))[:, None]


def test_a_model_that_keeps_something_while_it_runs() -> None:
    model = Carrying().eval()
    expected = explain_model(model)
    with eager_switching():
        actual = side_by_side([lambda: explain_model(model)] * 4)
    assert all(torch.equal(maps, expected) for maps in actual)


def test_the_users_own_passes_in_other_threads_are_neither_heard_nor_changed() -> None:
    model = Staged().eval().requires_grad_(False)
    expected, logits = explain_model(model, method="ablationcam"), model(noise(seed=7))
    stop = threading.Event()

    def predict() -> bool:
        same = True
        while not stop.is_set():
            same = same and torch.equal(model(noise(seed=7)), logits)
        return same

    def explain() -> bool:
        try:
            actual = [explain_model(model, method="ablationcam") for _ in range(5)]
        finally:
            stop.set()
        return all(torch.equal(maps, expected) for maps in actual)

    with eager_switching():
        assert side_by_side([predict, explain]) == [True, True]


def test_a_training_step_waits_under_the_lock() -> None:
    model = Staged().train()
    expected = explain_model(model)

    def train() -> bool:
        for _ in range(20):
            with camcli.lock_model(model):
                is_training = all(m.training for m in model.modules())
                model(noise()).sum().backward()
                model.zero_grad()
                moved = all(p.requires_grad for p in model.parameters())
            assert is_training and moved
        return True

    running = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with eager_switching():
        train_ok, *_ = side_by_side([train, *[lambda: explain_model(model)] * 2])
    assert train_ok
    model.load_state_dict(running, strict=False)
    assert torch.equal(explain_model(model), expected)


def test_asyncio_hands_calls_on_to_threads() -> None:
    model = Staged()
    expected = explain_model(model)

    async def serve() -> list[Tensor]:
        loop = asyncio.get_running_loop()
        pooled = [loop.run_in_executor(None, explain_model, model) for _ in range(3)]
        own = [asyncio.to_thread(explain_model, model) for _ in range(3)]
        return list(await asyncio.gather(*pooled, *own))

    with eager_switching():
        actual = asyncio.run(asyncio.wait_for(serve(), PATIENCE))
    assert all(torch.equal(maps, expected) for maps in actual)
    assert all(m.training for m in model.modules())


# ---------------------------------------------------------------- what shares a lock


def _submodule(model: Staged) -> nn.Module:
    return nn.Sequential(model.stem, model.middle, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _other_head(model: Staged) -> nn.Module:
    other = Staged(seed=3)
    other.stem, other.middle, other.last = model.stem, model.middle, model.last
    return other


def _tie(model: Staged) -> nn.Module:
    other = Staged(seed=3)
    other.fc.weight = model.fc.weight
    return other


@pytest.mark.parametrize("sharing", [lambda m: m, nn.DataParallel, _submodule, _other_head, _tie])
def test_what_shares_a_module_or_a_parameter_waits(sharing: Any) -> None:
    model = Staged()
    other = sharing(model)
    expected, wanted_of_other = explain_model(model), explain_model(other)
    pause = Paused(model.middle)
    first, maps = begin(lambda: explain_model(model))
    assert pause.has_begun.wait(PATIENCE)
    second, maps_of_other = begin(lambda: explain_model(other))
    second.join(0.3)
    assert second.is_alive() and not maps_of_other
    pause.may_go_on.set()
    assert has_ended(first) and has_ended(second)
    assert torch.equal(maps[0], expected) and torch.equal(maps_of_other[0], wanted_of_other)


def test_separate_models_run_side_by_side() -> None:
    models = [Staged(), Staged(seed=2)]
    expected = [explain_model(model) for model in models]
    meet = threading.Barrier(2)

    def wait(*_: object) -> None:
        meet.wait(PATIENCE)

    for model in models:
        # each waits in the middle of its pass for the other one
        model.middle.register_forward_hook(wait)
    actual = side_by_side([lambda m=m: explain_model(m) for m in models])
    assert all(map(torch.equal, actual, expected))


@pytest.mark.parametrize("method", ["legrad", "gradcam", "shapleycam"])
def test_settings_of_the_process_outlast_the_call_that_ends_first(method: str) -> None:
    first, second, third = Attending(), Attending(), Attending()
    expected = explain_model(second, method=method)
    assert torch.equal(explain_model(first, method=method), expected)
    assert torch.equal(explain_model(third, method=method), expected)
    before = state_of(first), torch.backends.cuda.math_sdp_enabled()
    is_fast = torch.backends.mha.get_fastpath_enabled
    # in which of its passes attention is watched; another thread's setting would not tell
    fast: list[bool] = []
    third.blocks[0].register_forward_hook(lambda *_: fast.append(is_fast()))
    explain_model(third, method=method)
    watched = fast.index(False) if method == "legrad" else 0

    def count_passes() -> Callable[[], bool]:
        passes = itertools.count()
        return lambda: next(passes) == watched

    pauses = [Paused(model.blocks[0], count_passes()) for model in (first, second)]
    calls = [begin(lambda m=m: explain_model(m, method=method)) for m in (first, second)]
    assert all(pause.has_begun.wait(PATIENCE) for pause in pauses)
    pauses[0].may_go_on.set()
    assert has_ended(calls[0][0])
    # the second is still on its way
    assert is_fast() == (method != "legrad")
    pauses[1].may_go_on.set()
    assert has_ended(calls[1][0])
    assert torch.equal(calls[1][1][0], expected)
    assert (state_of(first), torch.backends.cuda.math_sdp_enabled()) == before


def test_models_are_built_one_at_a_time_with_the_same_weights() -> None:
    def load() -> Tensor:
        built = camcli.load_model("timm/resnet18", pretrained=False, num_classes=3, device="cpu")
        return torch.cat([p.detach().flatten() for p in built.module.parameters()])

    before = torch.get_rng_state()
    with eager_switching():
        first, second, third = side_by_side([load] * 3)
    assert torch.equal(first, second) and torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_that_wait_for_each_other_are_reported() -> None:
    first, second = Staged(), Staged(seed=2)
    meet = threading.Barrier(2)

    def hold(outer: nn.Module, inner: nn.Module) -> Any:
        with camcli.lock_model(outer):
            meet.wait(PATIENCE)
            try:
                return explain_model(inner)
            except NestedCall as error:
                return str(error)

    actual = side_by_side([lambda: hold(first, second), lambda: hold(second, first)])
    message = [answer for answer in actual if isinstance(answer, str)]
    assert len(message) == 1 and message[0].startswith("Two threads each hold a model")
    assert isinstance(explain_model(first), Tensor) and isinstance(explain_model(second), Tensor)


# ---------------------------------------------------------------- explanations one by one


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return camcli.load_model(device="cpu", img_size=64)


def pictures(count: int = 4) -> list[Tensor]:
    return [noise(1, size=(64, 64), seed=seed)[0].sigmoid() for seed in range(count)]


def stack_maps(actual: Any) -> Tensor:
    return torch.stack([torch.from_numpy(e.heatmap) for e in actual])


def test_generators_hold_nothing_between_batches(classifier: Classifier) -> None:
    expected = stack_maps(camcli.explain(classifier, pictures(), batch_size=1))
    interleaved = camcli.explain(classifier, pictures(), batch_size=1)
    abandoned = camcli.explain(classifier, pictures(), batch_size=1)
    actual = [next(interleaved)]
    next(abandoned)
    # in other threads, while two generators stand open here
    others = side_by_side(
        [lambda: stack_maps(camcli.explain(classifier, pictures(), batch_size=1))] * 2
    )
    actual += [*interleaved]
    del abandoned
    assert all(torch.equal(maps, expected) for maps in (*others, stack_maps(actual)))


def test_a_generator_goes_from_thread_to_thread(classifier: Classifier) -> None:
    expected = stack_maps(camcli.explain(classifier, pictures(), batch_size=1))
    shared, actual, turn = (
        camcli.explain(classifier, pictures(), batch_size=1),
        [],
        threading.Lock(),
    )

    def take() -> None:
        while True:
            with turn:
                if (one := next(shared, None)) is None:
                    return
                actual.append(one)

    side_by_side([take] * 3)
    assert torch.equal(stack_maps(actual), expected)


def test_runs_of_one_classifier_side_by_side(classifier: Classifier, tmp_path: Path) -> None:
    from camcli.config import from_keywords
    from camcli.media.sources.listing import find_sources
    from camcli.pipeline import run_sources

    for i, picture in enumerate(pictures(3)):
        pixels = picture.permute(1, 2, 0).mul(255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")

    def work(folder: str) -> list[float]:
        given = sorted(map(str, tmp_path.glob("*.png")))
        options = from_keywords(save_path=str(tmp_path / folder), batch_size=1)
        return [r.maximum for r in run_sources(classifier, find_sources(given), options)]

    expected = work("alone")
    assert len(expected) == 3
    with eager_switching():
        assert side_by_side([lambda: work("a"), lambda: work("b")]) == [expected, expected]


# ---------------------------------------------------------------- packed


def test_packed_stands_open_while_other_threads_call_and_ends_in_any_order() -> None:
    model = Staged().eval()
    expected, before = explain_model(model), state_of(model)
    with camcli.packed(model):
        side_by_side([lambda: explain_model(model)] * 3)
        actual = side_by_side([lambda: explain_model(model)] * 3)
    assert state_of(model) == before
    for maps in actual:
        torch.testing.assert_close(maps, expected)
    with camcli.packed(model):
        pause = Paused(model.middle)
        thread, results = begin(lambda: explain_model(model))
        assert pause.has_begun.wait(PATIENCE)
        # its end has to wait for the pass
        threading.Timer(0.2, pause.may_go_on.set).start()
    assert has_ended(thread)
    torch.testing.assert_close(results[0], expected)
    assert state_of(model) == before


# ---------------------------------------------------------------- hooks of the user's


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: explain_model(model),
        lambda model: camcli.activations(model, noise()),
        lambda model: explain_model(nn.Sequential(model)),
    ],
)
def test_a_call_in_a_hook_of_a_pass_that_is_looked_at_is_refused(ask: Any) -> None:
    model = nn.Sequential(Staged(), nn.Softmax(1)).eval()
    expected, before = explain_model(copy.deepcopy(model)), state_of(model)
    handle = model.register_forward_hook(lambda m, *_: ask(m) and None)
    with pytest.raises(NestedCall, match="asks for an explanation of it in the middle of a pass"):
        explain_model(model)
    handle.remove()
    # nor was anything wrong measured meanwhile
    assert torch.equal(explain_model(model), expected) and state_of(model) == before


def test_explain_in_a_hook_is_refused(classifier: Classifier) -> None:
    asked = pictures(1)
    handle = classifier.module.register_forward_hook(
        lambda *_: list(camcli.explain(classifier, asked)) and None
    )
    try:
        with pytest.raises(NestedCall, match="ask when the pass is done"):
            list(camcli.explain(classifier, asked, target_layers=["_bn1"]))
    finally:
        handle.remove()


def test_a_call_in_a_hook_of_the_users_own_pass_works() -> None:
    model = Staged().eval()
    expected, logits = explain_model(model), model(noise())
    actual: list[Tensor] = []
    busy = False

    def hook(*_: object) -> None:
        nonlocal busy
        if not busy:
            busy = True
            actual.append(explain_model(model))

    handle = model.middle.register_forward_hook(hook)
    assert torch.equal(model(noise()), logits)
    handle.remove()
    assert torch.equal(actual[0], expected)


def test_a_thread_begun_in_a_hook_waits_for_the_pass() -> None:
    model = Staged()
    expected = explain_model(model)
    begun: list[tuple[threading.Thread, list[Any]]] = []

    def hook(*_: object) -> None:
        handle.remove()
        begun.append(begin(lambda: explain_model(model)))

    handle = model.middle.register_forward_hook(hook)
    assert torch.equal(explain_model(model), expected)
    (thread, results) = begun[0]
    assert has_ended(thread) and torch.equal(results[0], expected)


def _in_a_thread(call: Callable[[], Any]) -> Any:
    thread, results = begin(call)
    thread.join(PATIENCE)
    return results[0]


def _in_a_pool(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).exception(PATIENCE)


@pytest.mark.parametrize("wait", [_in_a_thread, _in_a_pool])
def test_a_hook_that_waits_for_a_thread_that_waits_for_it_is_reported(wait: Any) -> None:
    model, errors = Staged(), []
    expected = explain_model(model)
    model.middle.register_forward_hook(lambda *_: errors.append(wait(lambda: explain_model(model))))
    assert torch.equal(explain_model(model), expected)
    assert errors and all(isinstance(error, NestedCall) for error in errors)
    assert "let a hook wait for no thread" in str(errors[0])


def test_another_model_may_be_explained_in_a_hook() -> None:
    model, other = Staged(), Staged(seed=2)
    expected, wanted_of_other = explain_model(model), explain_model(other)
    actual: list[Tensor] = []
    model.middle.register_forward_hook(lambda *_: actual.append(explain_model(other)))
    assert torch.equal(explain_model(model), expected)
    assert actual and all(torch.equal(maps, wanted_of_other) for maps in actual)


# ---------------------------------------------------------------- processes


class Explaining(Dataset[Tensor]):
    """Pictures' maps, made where the pictures are read."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Tensor:
        return explain_model(self.model)


@FORKS
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_workers_forked_off_while_a_thread_explains() -> None:
    free, busy = Staged(), Staged(seed=2)
    expected = explain_model(free)
    pause = Paused(busy.middle)
    thread, _ = begin(lambda: explain_model(busy))
    assert pause.has_begun.wait(PATIENCE)
    fork: Any = {"num_workers": 1, "multiprocessing_context": "fork", "timeout": PATIENCE}
    for maps in DataLoader(Explaining(free), batch_size=None, **fork):
        assert torch.equal(maps, expected)
    with pytest.raises(Exception, match="when this process was forked off"):
        list(DataLoader(Explaining(busy), batch_size=None, **fork))
    pause.may_go_on.set()
    assert has_ended(thread)
    assert isinstance(explain_model(busy), Tensor)


@FORKS
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_leaves_the_settings_of_other_threads_calls_behind() -> None:
    model = Attending()
    pause = Paused(model.blocks[0])
    thread, _ = begin(lambda: explain_model(model, method="legrad"))
    assert pause.has_begun.wait(PATIENCE)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.backends.mha.get_fastpath_enabled() else 1)
    _, status = os.waitpid(child, 0)
    pause.may_go_on.set()
    assert has_ended(thread) and os.waitstatus_to_exitcode(status) == 0
    assert torch.backends.mha.get_fastpath_enabled()


def _put_map(model: nn.Module, actual: Any) -> None:
    torch.set_num_threads(1)
    actual.put(explain_model(model).numpy())


@pytest.mark.slow  # a new process imports torch and timm once more
def test_a_model_goes_to_a_spawned_process_while_it_is_locked() -> None:
    model = Staged()
    expected, context = explain_model(model), multiprocessing.get_context("spawn")
    actual = context.Queue()
    process = context.Process(target=_put_map, args=(model, actual), daemon=True)
    with camcli.lock_model(model):
        process.start()
        maps = actual.get(timeout=PATIENCE)
    process.join(PATIENCE)
    assert torch.equal(torch.from_numpy(maps), expected) and process.exitcode == 0


# ---------------------------------------------------------------- the lock itself


def test_ctrl_c_while_a_call_waits_leaves_nothing_held() -> None:
    model = Staged()
    expected, before = explain_model(model), state_of(model)
    pause = Paused(model.middle)
    thread, results = begin(lambda: explain_model(model))
    assert pause.has_begun.wait(PATIENCE)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        explain_model(model)
    pause.may_go_on.set()
    assert has_ended(thread) and torch.equal(results[0], expected)
    assert side_by_side([lambda: torch.equal(explain_model(model), expected)]) == [True]
    assert state_of(model) == before


def test_ctrl_c_while_packed_waits_for_its_end_still_puts_the_model_back() -> None:
    model = Staged().eval()
    expected, before = explain_model(model), state_of(model)
    with pytest.raises(KeyboardInterrupt), camcli.packed(model):
        pause = Paused(model.middle)
        thread, results = begin(lambda: explain_model(model))
        assert pause.has_begun.wait(PATIENCE)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        threading.Timer(0.6, pause.may_go_on.set).start()
    assert has_ended(thread)
    torch.testing.assert_close(results[0], expected)
    assert state_of(model) == before


def test_nothing_is_kept_in_a_model_or_keeps_it() -> None:
    model = Staged()
    before = set(vars(model))
    with camcli.lock_model(model):
        copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
        assert torch.equal(explain_model(copied), explain_model(model))
    assert set(vars(model)) == before
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None


def test_an_error_in_a_pass_lets_go_of_the_model() -> None:
    model = Staged()
    expected = explain_model(model)
    with pytest.raises(ModelError):
        explain_model(model, target_layers="last", output_key="nowhere")
    assert side_by_side([lambda: torch.equal(explain_model(model), expected)]) == [True]
