"""A model in the state in which it can be watched, and left as it was found (law 3)."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from camcli.models.families import SWITCHES
from camcli.models.model_lock import lock_model, locks_model
from camcli.shared_setting import SharedSetting


def unwrapped(module: nn.Module) -> nn.Module:
    """Returns a module out of DataParallel, DistributedDataParallel and torch.compile."""
    inner: nn.Module | None = module
    while inner is not None:
        module, inner = inner, _inner(inner)
    return module


def _inner(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.DataParallel | DistributedDataParallel):
        inside: nn.Module = module.module
        return inside
    # told by the name it gives, because importing torch.compile's class takes seconds
    return dict(module.named_children()).get("_orig_mod")


@locks_model
def weights_hash(module: nn.Module) -> str:
    """Returns 16 hex digits that stand for a model's weights: names, shapes, types and values."""
    found = hashlib.sha256()
    for name, value in unwrapped(module).state_dict().items():
        for tensor_name, tensor in _plain_tensors(name, value):
            found.update(f"{tensor_name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            if _has_values(tensor):
                # in one order, whatever the memory format
                values = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
                found.update(values.view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def _plain_tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Takes what a state dict holds apart into dense tensors of plain numbers, each with a name."""
    parts: Mapping[str, Any] = {}
    if isinstance(value, Mapping):
        parts = value
    elif isinstance(value, tuple | list):
        parts = {str(index): part for index, part in enumerate(value)}
    elif not isinstance(value, Tensor):
        return
    elif hasattr(value, "__tensor_flatten__"):
        # a tensor in a format of its own, such as torchao's, names the plain ones in it
        parts = {key: getattr(value, key) for key in value.__tensor_flatten__()[0]}
    elif value.is_nested:
        parts = {str(index): part for index, part in enumerate(value.unbind())}
    elif value.is_quantized:
        parts = _of_quantized(value)
    elif value.layout != torch.strided:
        parts = {"dense": value.detach().to_dense()}
    else:
        yield name, value.detach()
    for key, part in parts.items():
        yield from _plain_tensors(f"{name}.{key}", part)


def _of_quantized(tensor: Tensor) -> Mapping[str, Tensor]:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)
        return {"integers": tensor.int_repr(), "scale": scale}
    zeros = tensor.q_per_channel_zero_points()
    return {"integers": tensor.int_repr(), "scales": tensor.q_per_channel_scales(), "zeros": zeros}


def _has_values(tensor: Tensor) -> bool:
    # on the meta device, and in a FakeTensor, there are shapes alone
    return not tensor.is_meta and not hasattr(tensor, "fake_device")


def has_classifier(module: nn.Module) -> bool:
    """Tells whether a model has classes; timm's say that they have none, others are believed to."""
    return getattr(unwrapped(module), "num_classes", None) != 0


def watchable(module: nn.Module) -> nn.Module:
    """Returns a model out of its wrappers; raises ModelError where hooks cannot look inside."""
    module = unwrapped(module)
    # by their types, which are few
    if any(issubclass(kind, torch.jit.ScriptModule) for kind in set(map(type, parts(module)))):
        kind = "TorchScript"
    elif isinstance(module, GraphModule) and not _calls_layers(module):
        kind = "an exported program"
    else:
        return module
    raise ModelError(
        f"This model is {kind}, and hooks cannot look inside: give the model it was made from."
    )


def _calls_layers(module: GraphModule) -> bool:
    # all that torch.export leaves of them is one that checks the inputs
    return any(n.op == "call_module" and n.target != "_guards_fn" for n in module.graph.nodes)


@dataclass(frozen=True)
class _Held:
    """A model that a thread holds, all that is in it, and whether tensors are made for inference.

    Each walk over a model takes a tenth of a millisecond or more, a hundredth of a small pass.
    """

    module: nn.Module
    layers: list[nn.Module]
    has_inference_tensors: bool


class _OfThread(threading.local):
    # no context variable: asyncio hands those on to other threads
    held: _Held | None = None


_of_thread = _OfThread()


def _holds(module: nn.Module) -> _Held | None:
    held = _of_thread.held
    return held if held and held.module is module else None


def parts(module: nn.Module) -> list[nn.Module]:
    """Lists a module and all that is in it, each once, in no order that means anything."""
    if held := _holds(module):
        return held.layers
    # torch's own walk makes up every part's full name, and takes ten times as long
    found, waiting = {module}, [module]
    for part in waiting:
        for inner in part._modules.values():
            if inner is not None and inner not in found:
                found.add(inner)
                waiting.append(inner)
    return waiting


def _keep_random_state(device: torch.device | None) -> AbstractContextManager[None]:
    return _keep_random_state_of(device) if device else torch.random.fork_rng(())


@contextmanager
def _keep_random_state_of(device: torch.device) -> Iterator[None]:
    state = torch.cuda.get_rng_state(device)
    try:
        yield
    finally:
        torch.cuda.set_rng_state(state, device)


# random states and the compiler's stance are the process's: the last call puts them back
_random_states: dict[torch.device | None, SharedSetting[torch.device | None]] = {
    None: SharedSetting(_keep_random_state)
}


def set_stance(stance: str) -> AbstractContextManager[Any]:
    """Has the compiler take a stance, and its last one again behind a `with`."""
    setter: Any = torch.compiler.set_stance
    taken: AbstractContextManager[Any] = setter(stance)
    return taken


_stance: SharedSetting[str] = SharedSetting(set_stance)


@contextmanager
def keep_random_state(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Puts the random state back as it was before the first of the calls that run now."""
    with ExitStack() as stack:
        for device in (None, *devices):
            if device not in _random_states:
                _random_states.setdefault(device, SharedSetting(_keep_random_state))
            stack.enter_context(_random_states[device].held_at(device))
        yield


@contextmanager
def left_as_found(module: nn.Module) -> Iterator[None]:
    """Evaluates a model with frozen weights, and puts its and the caller's state back afterwards.

    Frozen, because a graph keeps no inputs for frozen weights.  Inside another one of the same
    model nothing is left to be done: all of it takes two milliseconds, which a batch pays once.
    """
    if _holds(module):
        yield
        return
    with lock_model(module), _frozen(module):
        yield


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    layers = parts(module)
    training = [layer.training for layer in layers]
    # each of torch's own walks over the parameters takes as long as all of this
    parameters = [p for layer in layers for p in layer._parameters.values() if p is not None]
    buffers = [b for layer in layers for b in layer._buffers.values() if b is not None]
    inference = any(tensor.is_inference() for tensor in chain(parameters, buffers))
    learning = [p for p in parameters if p.requires_grad and not (inference and p.is_inference())]
    devices = {p.device for p in parameters if p.is_cuda}
    before, _of_thread.held = _of_thread.held, _Held(module, layers, inference)
    try:
        with keep_random_state(devices), _as_written(), switched_off(layers, SWITCHES):
            # setting attributes of modules is slow, and most are in evaluation mode already
            if any(training):
                module.eval()
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
    finally:
        _of_thread.held = before
        for parameter in learning:
            parameter.requires_grad_(True)
        for layer, was_training in zip(layers, training, strict=True):
            if layer.training != was_training:
                layer.training = was_training


@contextmanager
def _as_written() -> Iterator[None]:
    """Runs compiled parts as they were written: compiled code ignores hooks that came later."""
    with ExitStack() as stack:
        # where it was not imported, which takes seconds, nothing has been compiled
        if "torch._dynamo" in sys.modules:
            stack.enter_context(_stance.held_at("force_eager"))
        yield


@contextmanager
def switched_off(layers: Iterable[nn.Module], names: Iterable[str]) -> Iterator[None]:
    """Sets the named attributes to False where they are on, and puts them back afterwards."""
    states = [vars(layer) for layer in layers]
    on = [(state, name, state[name]) for state in states for name in names if state.get(name)]
    try:
        for state, name, _ in on:
            state[name] = False
        yield
    finally:
        for state, name, value in on:
            state[name] = value


@contextmanager
def standing_in(layer: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Lets something else stand in for a layer's `forward`, and takes it away afterwards."""
    state = vars(layer)
    own = {"forward": state["forward"]} if "forward" in state else {}
    state["forward"] = forward
    try:
        yield
    finally:
        del state["forward"]
        state.update(own)


def has_stand_in(layer: nn.Module) -> bool:
    """Tells whether something stands in for a layer's `forward`, and no method of its own."""
    forward = vars(layer).get("forward")
    return forward is not None and getattr(forward, "__self__", None) is not layer


def is_hooked(layer: nn.Module) -> bool:
    """Tells whether somebody looks at what goes into a layer, or comes out."""
    return bool(layer._forward_pre_hooks or layer._forward_hooks)


def recordable(module: nn.Module) -> Callable[[Tensor], Any]:
    """Returns a model with clones of its inference tensors, which no graph can hold."""
    held = _holds(module)
    # collecting names is slow, and such tensors are rare
    if held and not held.has_inference_tensors:
        return module
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    clones = {
        name: tensor.clone().detach() for name, tensor in tensors.items() if tensor.is_inference()
    }
    return partial(functional_call, module, clones) if clones else module
