"""Finds rectifying activations in the recorded graph of a pass, however they were called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from camcli.models.state import in_this_thread

# autograd's names for activations that hold negative values back; modules, functions and methods of
# tensors share them
NODES: Mapping[str, str] = {
    "ReluBackward0": "ReLU",
    "ThresholdBackward0": "threshold",
    "LeakyReluBackward0": "LeakyReLU",
    "LeakyReluBackward1": "LeakyReLU in place",
    "PreluKernelBackward0": "PReLU",
    "RreluWithNoiseBackward0": "RReLU",
    "EluBackward0": "ELU and SELU",
    "EluBackward1": "ELU and SELU in place",
    "CeluBackward0": "CELU",
    "CeluBackward1": "CELU in place",
    "GeluBackward0": "GELU",
    "SiluBackward0": "SiLU (Swish)",
    "MishBackward0": "Mish",
    "HardswishBackward0": "Hardswish",
    "SoftplusBackward0": "Softplus",
    "SwishAutoFnBackward": "timm's own",
    "MishAutoFnBackward": "timm's own",
    "HardSwishAutoFnBackward": "timm's own",
    "HardMishAutoFnBackward": "timm's own",
}
# clamps rectify if their lower bound is 0; the attribute that holds the bound
BOUNDED: Mapping[str, str] = {
    "HardtanhBackward0": "_saved_min_val",  # ReLU6
    "HardtanhBackward1": "_saved_min_val",
    "ClampMinBackward0": "_saved_min",
    "ClampBackward1": "_saved_min",  # without an upper bound, which would make a gate
}
# classes of modules that rectify in several operations, none of which tells; the last one counts
COMPOSED: Mapping[str, str] = {
    "QuickGELU": "OpenAI's CLIP, timm's models of that name, and own code",
    "QuickGELUActivation": "transformers",
    "NewGELUActivation": "transformers",
    "Swish": "timm and own code",
    "HardMish": "timm",
    "MemoryEfficientSwish": "EfficientNet-PyTorch",
}


@contextmanager
def record_composed_rectifiers(module: nn.Module) -> Iterator[list[Node]]:
    """Collects the last step of each rectifier that is made of several steps while a pass runs."""
    noted: list[Node] = []

    def note(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None:
            noted.append(output.grad_fn)

    with ExitStack() as stack:
        for layer in module.modules():
            if type(layer).__name__ in COMPOSED:
                stack.callback(layer.register_forward_hook(in_this_thread(note)).remove)
        yield noted


def find_rectifiers(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yields the steps of a recorded pass that are rectifiers in one operation."""
    for node in nodes:
        name = node.name()
        bound = BOUNDED.get(name)
        at_zero = bound and getattr(node, bound) == 0 and getattr(node, "_saved_max", None) is None
        if name in NODES or at_zero:
            yield node
