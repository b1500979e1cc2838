"""Keeps one picture's outputs in front of a layer, so that reruns need not compute them.

Law 2: altered outputs of a layer run only the layers behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain, count
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.acceleration import copy_to_model_format
from camcli.models.state import in_this_thread, list_modules, patch_forward, preserve_state
from camcli.utils.profiling import stage

# the outputs, call by call, of each layer that finished before the target layer did
Prefix = Mapping[nn.Module, tuple[Any, ...]]
EMPTY_PREFIX: Prefix = MappingProxyType({})


@stage("forward")
def record_prefix(module: nn.Module, inputs: Tensor, layer: str, *, calls: int) -> Prefix:
    """Runs a pass and keeps all outputs until a layer's last call ends.  [1 3 H W]

    A layer inside another one that has finished is left out, since it is not called again.
    """
    target, to_come = module.get_submodule(layer), count(calls - 1, -1)
    inputs = copy_to_model_format(module, inputs)
    # for the model and each of its running parts: the layers that it called, and their outputs
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
    """Lets layers return their kept outputs, one for each earlier call, and then run as before.

    They return the kept tensors themselves, because copies would cost more than the tail behind
    most layers.  The caller must make sure that nothing changes them.
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
