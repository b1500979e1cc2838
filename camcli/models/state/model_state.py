"""A model in the state in which it can be watched, and left as it was found (law 3)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.nn.parallel import DistributedDataParallel

from camcli.errors import ModelError
from camcli.models.inspection.quirks import SWITCHES
from camcli.models.state.forward_patching import switch_off
from camcli.models.state.model_lock import is_in_hand, lock_model
from camcli.models.state.module_list import (
    ModelParts,
    check_is_module,
    keep_notes,
    list_parts,
    note_once,
)
from camcli.utils.shared_setting import SharedSetting


def unwrap(module: nn.Module) -> nn.Module:
    """Returns a module out of DataParallel, DistributedDataParallel and torch.compile."""
    inner: nn.Module | None = module
    while inner is not None:
        module, inner = inner, _find_inner(inner)
    return module


def _find_inner(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.DataParallel | DistributedDataParallel):
        inside: nn.Module = module.module
        return inside
    # recognised by the name of its class, because importing torch.compile's class is slow
    children = module._modules
    # TorchScript's own dictionary has no get()
    if "_orig_mod" not in children:
        return None
    return children["_orig_mod"]


def has_classifier(module: nn.Module) -> bool:
    """Tells whether a model has classes; timm's say that they have none, others are believed to."""
    return getattr(unwrap(module), "num_classes", None) != 0


def is_sharded(module: nn.Module) -> bool:
    """Tells whether processes have a share of the weights each (FSDP), so that none runs alone."""
    # by the names of what only a distributed build of torch has
    wrapped = any(type(m).__name__ == "FullyShardedDataParallel" for m in module.modules())
    return wrapped or any(hasattr(p, "device_mesh") for p in module.parameters())


def check_hookable(module: nn.Module) -> nn.Module:
    """Returns a model out of its wrappers; raises ModelError where hooks cannot look inside."""
    return note_once(_find_hookable, module)


def _find_hookable(module: nn.Module) -> nn.Module:
    check_is_module(module)
    module = unwrap(module)
    if any(issubclass(kind, torch.jit.ScriptModule) for kind in list_parts(module).kinds):
        kind = "TorchScript"
    elif isinstance(module, GraphModule) and not _has_called_layers(module):
        kind = "an exported program"
    else:
        return module
    raise ModelError(
        f"This model is {kind}, and hooks cannot look inside: give the model it was made from."
    )


def _has_called_layers(module: GraphModule) -> bool:
    # all that torch.export leaves of them is one that checks the inputs
    return any(n.op == "call_module" and n.target != "_guards_fn" for n in module.graph.nodes)


@dataclass(frozen=True)
class _HeldModel:
    """A model that a thread holds, and whether any of its tensors are made for inference."""

    module: nn.Module
    has_inference_tensors: bool


class _OfThread(threading.local):
    # no context variable: asyncio hands those on to other threads
    held: _HeldModel | None = None


_of_thread = _OfThread()


def _find_held(module: nn.Module) -> _HeldModel | None:
    held = _of_thread.held
    return held if held and held.module is module else None


@contextmanager
def _keep_random_state(device: torch.device | None) -> Iterator[None]:
    state = torch.cuda.get_rng_state(device) if device else torch.get_rng_state()
    try:
        yield
    finally:
        torch.cuda.set_rng_state(state, device) if device else torch.set_rng_state(state)


# random states and the compiler's stance are the process's: the last call puts them back
_random_states: dict[torch.device | None, SharedSetting[torch.device | None]] = {
    None: SharedSetting(_keep_random_state)
}


def set_stance(stance: str) -> AbstractContextManager[Any]:
    """Sets the compiler's stance in its block, and the last one again afterwards."""
    setter: Any = torch.compiler.set_stance
    taken: AbstractContextManager[Any] = setter(stance)
    return taken


_stance: SharedSetting[str] = SharedSetting(set_stance)


@contextmanager
def keep_random_state(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Puts the random state back as it was before the first of the calls that run now."""
    with ExitStack() as stack:
        _hold_random_states(stack, devices)
        yield


def _hold_random_states(stack: ExitStack, devices: Iterable[torch.device]) -> None:
    for device in (None, *devices):
        if device not in _random_states:
            _random_states.setdefault(device, SharedSetting(_keep_random_state))
        stack.enter_context(_random_states[device].hold_at(device))


def seed_random_state(seed: int, device: torch.device) -> None:
    """Seeds what is drawn on a device, inside a block that puts the random state back."""
    if device.type == "cpu":
        # torch.manual_seed seeds the GPUs too, and notes the call's stack for those that sleep
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Evaluates a model with frozen weights, and puts its and the caller's state back afterwards.

    Weights are frozen because a graph keeps no inputs for frozen weights.  Inside another block of
    the same model nothing is left to be done, so a batch pays for it once.
    """
    if _find_held(module):
        yield
        return
    with ExitStack() as stack:
        if not is_in_hand(module):
            stack.enter_context(lock_model(module))
            stack.enter_context(keep_notes(module))
        with _frozen(module):
            yield


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    parts = list_parts(module)
    parameters = parts.parameters
    training = _read_modes(parts)
    inference = any(map(Tensor.is_inference, chain(parameters, parts.buffers)))
    learning = [p for p in parameters if p.requires_grad and not (inference and p.is_inference())]
    devices = {p.device for p in parameters if p.is_cuda}
    # torch's own layers have none of the switches
    torchs = {kind for kind in parts.kinds if kind.__module__.startswith("torch.nn.modules.")}
    switched = [layer for layer in parts.modules if type(layer) not in torchs]
    before, _of_thread.held = _of_thread.held, _HeldModel(module, inference)
    try:
        with _hold_settings(devices), switch_off(switched, SWITCHES):
            # setting attributes of modules is slow, and most are in evaluation mode already
            if any(training):
                module.eval()
            # faster than `requires_grad_`
            for parameter in learning:
                parameter.requires_grad = False
            yield
    finally:
        _of_thread.held = before
        for parameter in learning:
            parameter.requires_grad = True
        if _read_modes(parts) != training:
            for layer, was_training in zip(parts.modules, training, strict=True):
                layer.training = was_training


def _read_modes(parts: ModelParts) -> list[bool]:
    """Lists whether each module of a model is in training mode."""
    try:
        return [own["training"] for own in parts.attributes]
    except KeyError:  # some, such as TorchScript's, keep it elsewhere
        return [layer.training for layer in parts.modules]


@contextmanager
def _hold_settings(devices: Iterable[torch.device]) -> Iterator[None]:
    """Keeps the random state, and has compiled parts run as they were written, in its block.

    Compiled code ignores hooks that came later.
    """
    with ExitStack() as stack:
        _hold_random_states(stack, devices)
        # where torch's compiler was not imported, nothing is compiled; importing it is slow
        if "torch._dynamo" in sys.modules:
            stack.enter_context(_stance.hold_at("force_eager"))
        yield


def make_recordable(module: nn.Module) -> Callable[[Tensor], Any]:
    """Returns a model with clones of its inference tensors, which no graph can hold.

    It is called as the module is, with pictures [b c H W].
    """
    held = _find_held(module)
    # collecting names is slow, and such tensors are rare
    if held and not held.has_inference_tensors:
        return module
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    clones = {
        name: tensor.clone().detach() for name, tensor in tensors.items() if tensor.is_inference()
    }
    return partial(functional_call, module, clones) if clones else module
