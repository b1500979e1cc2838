"""What stands in front of a layer, remembered for one picture, so that reruns need not run it.

Law 2: altered outputs of a layer run only what lies behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain, count
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.memory_format import network_input
from camcli.models.model_lock import in_this_thread
from camcli.models.state import left_as_found, parts, standing_in
from camcli.stages import stage

# what each layer put out, call by call, that was done when the target layer was
Trunk = Mapping[nn.Module, tuple[Any, ...]]
NOTHING: Trunk = MappingProxyType({})


@stage("forward")
def remembered(module: nn.Module, inputs: Tensor, layer: str, *, calls: int) -> Trunk:
    """Runs a pass and keeps what was put out before a layer's last call was done, and by it.

    Of a layer inside another one that was done, too, nothing is kept: it is not asked again.
    [1 3 H W]
    """
    target, to_come = module.get_submodule(layer), count(calls - 1, -1)
    inputs = network_input(module, inputs)
    # for the model and each of its parts that are running: what they called, and what it put out
    done: list[list[tuple[nn.Module, Any]]] = [[]]
    trunk: dict[nn.Module, tuple[Any, ...]] = {}

    def begins(*_: Any) -> None:
        if not trunk:
            done.append([])

    def ends(part: nn.Module, _: Any, output: Any) -> None:
        if trunk:
            return
        done.pop()
        done[-1].append((part, output))
        if part is target and not next(to_come):
            for finished, put_out in chain.from_iterable(done):
                trunk[finished] = (*trunk.get(finished, ()), put_out)

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(left_as_found(module))
        for part in parts(module):
            stack.callback(part.register_forward_pre_hook(in_this_thread(begins)).remove)
            stack.callback(part.register_forward_hook(in_this_thread(ends)).remove)
        module(inputs)
    return trunk


@contextmanager
def answering_from(trunk: Trunk) -> Iterator[None]:
    """Lets layers answer with what they put out before, as often as they did, and then run.

    They hand on the very tensors: copies would cost more than what lies behind most layers, so that
    whoever uses this must make sure that they stay as they are.
    """
    with ExitStack() as stack:
        for part, outputs in trunk.items():
            stack.enter_context(standing_in(part, _answering(part, outputs)))
        yield


def _answering(part: nn.Module, outputs: tuple[Any, ...]) -> Callable[..., Any]:
    run, remaining = part.forward, iter(outputs)

    def answer(*args: Any, **kwargs: Any) -> Any:
        for output in remaining:
            return output
        return run(*args, **kwargs)

    return in_this_thread(answer, otherwise=run)
