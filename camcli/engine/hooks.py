"""Runs passes through a model with hooks at its layers; every hook lives in one `with`.

Law 1: gradients begin at the target layer.  Law 3: the model is left as it was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from camcli.errors import LayerError, ModelError
from camcli.models.acceleration import WatchedPass, copy_to_model_format, run_folded
from camcli.models.inspection.layout import find_tensor, replace_tensor
from camcli.models.outputs.logits import describe_output, select_output
from camcli.models.state import in_this_thread, list_modules, make_recordable, preserve_state
from camcli.utils.profiling import stage

Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]


@dataclass
class Recording:
    """What one forward pass left: raw layer outputs, inputs of possible heads, and the output.

    A possible head is a linear layer with features [b c], or a 1x1 convolution with maps [b c h w]
    (already pooled if h and w are 1).
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    head_inputs: list[tuple[nn.Linear | nn.Conv2d, Tensor]] = field(default_factory=list)
    output: Any = None

    @cached_property
    def logits(self) -> Tensor:
        """The output as float32 logits [b n]; raises ModelError if it has another shape."""
        # only on demand, since a method without a class also explains models without classes
        with torch.enable_grad():
            return check_logits(self.output)

    @property
    def head(self) -> tuple[nn.Linear | nn.Conv2d, Tensor] | None:
        """The last layer with as many outputs as there are logits, and its input; or None."""
        width = self.logits.shape[1]
        return next((h for h in reversed(self.head_inputs) if len(h[0].weight) == width), None)


@contextmanager
def attach_hooks(module: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Hooks the named layers; raises LayerError at the end for a layer that was not called."""
    called: set[str] = set()

    def count_calls(name: str, hook: Hook) -> Hook:
        def call_hook(m: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            called.add(name)
            return hook(m, args, output)

        return call_hook

    with ExitStack() as stack:
        for name, hook in hooks.items():
            handle = module.get_submodule(name).register_forward_hook(
                in_this_thread(count_calls(name, hook))
            )
            stack.callback(handle.remove)
        yield
    for name in hooks:
        if name not in called:
            raise LayerError(f"Layer {name!r} was not called in the forward pass: choose another.")


def is_linear(layer: nn.Conv2d) -> bool:
    """Tells whether a convolution is a 1x1 convolution: a linear layer at each place."""
    plain = layer.kernel_size == layer.stride == (1, 1) and layer.padding in ((0, 0), "valid")
    return plain and layer.groups == 1


@contextmanager
def _record_head_inputs(module: nn.Module, recording: Recording) -> Iterator[None]:
    def note(m: nn.Module, args: tuple[Any, ...]) -> None:
        # not the inputs of token projections [b n c], which would take much memory
        if isinstance(m, nn.Linear | nn.Conv2d) and args and args[0].ndim == m.weight.ndim:
            recording.head_inputs.append((m, args[0]))

    with ExitStack() as stack:
        for m in list_modules(module):
            if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and is_linear(m)):
                stack.callback(m.register_forward_pre_hook(in_this_thread(note)).remove)
        yield


@stage("forward")
def record(
    module: nn.Module, inputs: Tensor, layers: Iterable[str], *, graph: bool, heads: bool = False
) -> Recording:
    """Runs one forward pass and keeps the layers' outputs.  [b 3 H W]

    With `graph`, autograd records from the first of these layers on, and nothing before it.  With
    `heads`, the inputs of linear layers behind that layer are kept, too.  Raises LayerError for a
    layer that was not called.
    """
    names = tuple(layers)

    def run(inputs: Tensor, graph: bool) -> Recording:
        return _record(module, inputs, names, graph=graph, heads=heads)

    watched = WatchedPass(names, graph, run, lambda made: (made.outputs, made.output))
    with preserve_state(module):
        return run_folded(module, inputs, watched)


def _record(
    module: nn.Module, inputs: Tensor, layers: Iterable[str], *, graph: bool, heads: bool
) -> Recording:
    recording, inputs = Recording(), copy_to_model_format(module, inputs)
    behind = ExitStack()

    def keep(name: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        tensor = _find_tensor(output, name)
        if tensor.is_quantized:
            # autograd does not support quantised numbers, and the layers behind take only those
            recording.outputs[name] = tensor.dequantize()
            recording.calls[name] += 1
            return output
        if graph and not tensor.requires_grad:
            # autograd records from here on, and nothing before this layer
            tensor = tensor.detach().requires_grad_()
            torch.set_grad_enabled(True)
        if heads and not recording.calls:
            # only now, since hooks on all projections of a network cost more than the backward pass
            behind.enter_context(_record_head_inputs(module, recording))
        # if a layer is called several times, the last call counts
        recording.outputs[name] = tensor
        recording.calls[name] += 1
        # the next layer gets a clone, so that it may work in place
        return replace_tensor(output, tensor.clone())

    hooks = {name: partial(keep, name) for name in layers}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(not graph))
        # no_grad restores the caller's gradient mode, even if a hook has switched recording on
        stack.enter_context(torch.no_grad())
        stack.enter_context(behind)
        stack.enter_context(attach_hooks(module, hooks))
        run = make_recordable(module) if graph else module
        recording.output = run(inputs)
    return recording


@stage("forward")
def rerun(
    module: nn.Module, inputs: Tensor, layer: str, output: Tensor, *, calls: int = 1
) -> Tensor:
    """Runs a pass in which the layer's last call returns `output` instead.

    [b 3 H W] -> logits [b n]
    """
    calls_to_come, inputs = count(calls - 1, -1), copy_to_model_format(module, inputs)

    def replace(_: nn.Module, __: tuple[Any, ...], original: Any) -> Any:
        if next(calls_to_come):
            return original
        tensor = _find_tensor(original, layer)
        # the next layer gets a copy, so that it may work in place
        copied = output.clone(memory_format=torch.contiguous_format)
        return replace_tensor(original, _cast_like(tensor, copied))

    with torch.inference_mode(), preserve_state(module), attach_hooks(module, {layer: replace}):
        return check_logits(module(inputs))


@stage("forward")
def rerun_recorded(module: nn.Module, inputs: Tensor, layer: str, output: Tensor) -> Tensor:
    """Runs a pass in which a layer returns `output` instead; autograd records what follows.

    [b 3 H W] -> logits [b n]
    """

    inputs = copy_to_model_format(module, inputs)

    def replace(_: nn.Module, __: tuple[Any, ...], original: Any) -> Any:
        torch.set_grad_enabled(True)
        return replace_tensor(original, output.clone())

    with torch.no_grad(), preserve_state(module), attach_hooks(module, {layer: replace}):
        return check_logits(make_recordable(module)(inputs))


def check_logits(output: Any) -> Tensor:
    """Checks a model's output and returns it as float32 logits [b n]; raises ModelError."""
    output = select_output(output, None)
    if not isinstance(output, Tensor):
        raise ModelError(
            f"The model returned {describe_output(output)}, not a tensor of logits: name the part "
            "that holds them with --output-key (in Python output_key)."
        )
    if output.ndim == 1:
        output = output[:, None]
    if output.ndim > 2 and output[0, :, ...].numel() == output.shape[1]:
        output = output.flatten(1)
    if output.ndim != 2:
        shape = list(output.shape)
        raise ModelError(f"The model returned a tensor of shape {shape}, not logits [b n].")
    logits: Tensor = output.float()
    return logits


def _cast_like(tensor: Tensor, values: Tensor) -> Tensor:
    """Converts values to a tensor's type, and to its scale if the tensor is quantised."""
    if not tensor.is_quantized:
        return values.to(tensor.dtype)
    scale = tensor.q_scale(), tensor.q_zero_point()
    return torch.quantize_per_tensor(values.float(), *scale, tensor.dtype)


def _find_tensor(output: Any, layer: str) -> Tensor:
    tensor = find_tensor(output)
    if tensor is None or not (tensor.is_floating_point() or tensor.is_quantized):
        kind = type(output).__name__ if tensor is None else f"{tensor.dtype} tensor"
        raise LayerError(
            f"Layer {layer!r} puts out a {kind}, which cannot be read as maps: choose another."
        )
    return tensor
