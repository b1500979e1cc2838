"""Threads that explain one model: `python -m tests.tools.threads` counts wrong maps.

python -m tests.tools.threads [--threads 4] [--calls 25]
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import camcli
from tests.networks import Attending, Staged, noise

# longer than any of these calls takes: what takes so long hangs
PATIENCE = 120
METHODS = {
    "gradcam": Staged,
    "eigencam": Staged,
    "ablationcam": Staged,
    "scorecam": Staged,
    "fullgrad": Staged,
    "guidedbackprop": Staged,
    "shapleycam": Attending,
    "gradattention": Attending,
    "legrad": Attending,
}
MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "evaluation": nullcontext,
    "training": nullcontext,
    "frozen": nullcontext,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def model_in(mode: str, method: str) -> nn.Module:
    """Returns a model that suits a method, as a mode has it."""
    model = METHODS[method]()
    model.train(mode == "training")
    model.requires_grad_(mode != "frozen")
    return model


def state_of(model: nn.Module) -> list[Any]:
    """Lists what a call must leave as it was."""
    return [
        [
            (m.training, dict(m._forward_hooks), dict(m._forward_pre_hooks), "forward" in vars(m))
            for m in model.modules()
        ],
        [(p.requires_grad, p.grad) for p in model.parameters()],
        [getattr(m, "fused_attn", None) for m in model.modules()],
        torch.backends.mha.get_fastpath_enabled(),
        torch.get_rng_state().tolist(),
    ]


@contextmanager
def eager_switching() -> Iterator[None]:
    """Has Python change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def side_by_side(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Makes calls in a thread each, begun together; raises the first error, and where one hangs."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []
    begin = threading.Barrier(len(calls))

    def run(index: int) -> None:
        try:
            begin.wait(PATIENCE)
            results[index] = calls[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "a call hangs"
    return results


def wrong_maps(
    model: nn.Module, method: str, mode: str, threads: int, calls: int
) -> tuple[int, bool]:
    """Counts maps that differ from those made alone, and tells whether the model is as it was."""
    inputs = [noise(2, seed=seed) for seed in range(threads)]

    def explain(pictures: Tensor) -> Tensor:
        with MODES[mode]():
            actual: Tensor = camcli.heatmaps(model, pictures, method, targets=1)
        return actual

    expected = [explain(pictures) for pictures in inputs]
    before = state_of(model)

    def work(index: int) -> int:
        return sum(not torch.equal(explain(inputs[index]), expected[index]) for _ in range(calls))

    with eager_switching():
        wrong = sum(side_by_side([lambda i=i: work(i) for i in range(threads)]))
    return wrong, state_of(model) == before


def main() -> None:
    """Prints threads, calls, and how many maps were wrong, by method and mode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--calls", type=int, default=25, help="of each thread")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    begin, total, faults = time.perf_counter(), 0, 0
    for method in METHODS:
        for mode in MODES:
            model = model_in(mode, method)
            wrong, is_as_it_was = wrong_maps(model, method, mode, asked.threads, asked.calls)
            total, faults = total + asked.threads * asked.calls, faults + wrong + (not is_as_it_was)
            left = "left as found" if is_as_it_was else "CHANGED"
            print(f"{method:15} {mode:15} {asked.threads} threads: {wrong} wrong, model {left}")
    seconds = time.perf_counter() - begin
    print(f"{total} calls in {seconds:.0f} s, {faults} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
