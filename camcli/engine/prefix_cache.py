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

from camcli.models.acceleration.memory_format import copy_to_model_format
from camcli.models.state.forward_patching import patch_forward
from camcli.models.state.model_lock import in_this_thread
from camcli.models.state.model_state import list_modules, preserve_state
from camcli.utils.profiling import stage

# what each layer put out, call by call, that was done when the target layer was
Prefix = Mapping[nn.Module, tuple[Any, ...]]
EMPTY_PREFIX: Prefix = MappingProxyType({})


@stage("forward")
def record_prefix(module: nn.Module, inputs: Tensor, layer: str, *, calls: int) -> Prefix:
    """Runs a pass and keeps what was put out before a layer's last call was done, and by it.

    Of a layer inside another one that was done, too, nothing is kept: it is not asked again.
    [1 3 H W]
    """
    target, to_come = module.get_submodule(layer), count(calls - 1, -1)
    inputs = copy_to_model_format(module, inputs)
    # for the model and each of its parts that are running: what they called, and what it put out
    done: list[list[tuple[nn.Module, Any]]] = [[]]
    prefix: dict[nn.Module, tuple[Any, ...]] = {}

    def start_part(*_: Any) -> None:
        if not prefix:
            done.append([])

    def store_output(part: nn.Module, _: Any, output: Any) -> None:
        if prefix:
            return
        done.pop()
        done[-1].append((part, output))
        if part is target and not next(to_come):
            for finished, put_out in chain.from_iterable(done):
                prefix[finished] = (*prefix.get(finished, ()), put_out)

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(preserve_state(module))
        for part in list_modules(module):
            stack.callback(part.register_forward_pre_hook(in_this_thread(start_part)).remove)
            stack.callback(part.register_forward_hook(in_this_thread(store_output)).remove)
        module(inputs)
    return prefix


@contextmanager
def replay_prefix(prefix: Prefix) -> Iterator[None]:
    """Lets layers answer with what they put out before, as often as they did, and then run.

    They hand on the very tensors: copies would cost more than what lies behind most layers, so that
    whoever uses this must make sure that they stay as they are.
    """
    with ExitStack() as stack:
        for part, outputs in prefix.items():
            stack.enter_context(patch_forward(part, _make_replay(part, outputs)))
        yield


def _make_replay(part: nn.Module, outputs: tuple[Any, ...]) -> Callable[..., Any]:
    run, remaining = part.forward, iter(outputs)

    def replay(*args: Any, **kwargs: Any) -> Any:
        for output in remaining:
            return output
        return run(*args, **kwargs)

    return in_this_thread(replay, otherwise=run)
