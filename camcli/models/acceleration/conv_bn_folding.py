"""Folds batch norms, and ReLUs behind them, into the convolutions in front, for many passes.

A pass is watched: a convolution can be folded if only a batch norm reads its output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torchs_module
from torch.nn.utils.fusion import fuse_conv_bn_weights

from camcli.models.acceleration.accelerate import is_accelerated
from camcli.models.acceleration.conv_output_tracer import (
    NORM_AND_ACTIVATION,
    ConvChain,
    is_norm,
    trace_conv_outputs,
)
from camcli.models.acceleration.memory_format import accepts_channels_last
from camcli.models.acceleration.onednn_conv import (
    can_prepack,
    can_replace_conv,
    convolve,
    is_plain,
    prepack,
)
from camcli.models.state import (
    has_patched_forward,
    in_this_thread,
    list_modules,
    patch_forward,
    preserve_state,
)

Result = TypeVar("Result")
# outputs in which the norm and ReLU are done already, by the layer that would do them
Waiting = dict[int, tuple[Tensor, tuple[nn.Module, ...]]]
# as a share of the largest logit; rounding makes 1e-6
TOLERANCE = 1e-4
NOTHING: tuple[None, tuple[nn.Module, ...]] = (None, ())
LAST = torch.channels_last
# hooks of all modules: torch 2.6 has no function that asks for them
GLOBAL_HOOKS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
)


class ConvBnFolding:
    """The convolutions of a model that are folded with their norms and ReLUs while passes run.

    Without chains it folds nothing.
    """

    def __init__(self, chains: Iterable[ConvChain]) -> None:
        self.waiting: Waiting = {}
        self.forwards: dict[nn.Module, Callable[..., Any]] = {}
        for chain in chains:
            self.forwards[chain.conv] = _FoldedConv(chain, self.waiting)
            for layer in chain.behind:
                self.forwards[layer] = _make_pass_on(layer, self.waiting)

    def run_folded(self, run: Callable[[], Result]) -> Result:
        """Runs a pass folded; runs it once more as it was written if it took another path."""
        with ExitStack() as stack:
            stack.callback(self.waiting.clear)
            for layer, forward in self.forwards.items():
                alone = in_this_thread(forward, otherwise=layer.forward)
                stack.enter_context(patch_forward(layer, alone))
            output = run()
            if not self.waiting:
                return output
        self.forwards.clear()
        return run()


def find_foldable(module: nn.Module, inputs: Tensor) -> ConvBnFolding:
    """Finds the convolutions that can be folded, and checks them by a dry run.  [1 3 H W]"""
    layers = list_modules(module)
    if not _may_fold(layers):
        return ConvBnFolding(())
    if not accepts_channels_last(module, inputs):
        return ConvBnFolding(())
    inputs = inputs.contiguous(memory_format=LAST)
    with torch.no_grad(), preserve_state(module):
        with trace_conv_outputs(layers) as watch:
            wanted = module(inputs)
        folding = ConvBnFolding(watch.list_chains())
        folded_output = folding.run_folded(lambda: module(inputs))
    return folding if _is_close(folded_output, wanted) else ConvBnFolding(())


def _may_fold(layers: Iterable[nn.Module]) -> bool:
    return (
        any(map(is_norm, layers))
        and any(map(can_replace_conv, layers))
        # a compiled block runs as it was written while a part of it has another forward
        and all(is_accelerated(layer) or not has_patched_forward(layer) for layer in layers)
        and not torch.is_autocast_enabled("cpu")
        and not any(getattr(torchs_module, name) for name in GLOBAL_HOOKS)
    )


def _is_close(actual: Any, expected: Any) -> bool:
    if not isinstance(expected, Tensor) or actual.shape != expected.shape:
        return False
    # a difference of infinities is NaN, which is never small
    return bool((actual - expected).abs().max() <= TOLERANCE * expected.abs().max())


class _FoldedConv:
    """A convolution with a batch norm folded into its weight and bias, and perhaps a ReLU."""

    def __init__(self, chain: ConvChain, waiting: Waiting) -> None:
        self.chain, self.behind, self.waiting = chain, chain.behind, waiting
        self.weight, self.bias = torch.empty(0), torch.empty(0)
        # the input shape that the weight is prepacked for; None if it serves all shapes
        self.shape: torch.Size | None = torch.Size()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Convolves, norms and rectifies; the norm and the ReLU then pass the output on."""
        if len(args) != 1 or kwargs:
            return nn.Conv2d.forward(self.chain.conv, *args, **kwargs)
        output = self._convolve(*args)
        self.waiting[id(output)] = output, self.behind
        return output

    def _convolve(self, inputs: Tensor) -> Tensor:
        conv, rectified = self.chain.conv, self.chain.relu is not None
        packs = can_prepack(conv) and is_plain(inputs)
        # for another shape a prepacked weight is no faster; the dry run had one picture
        if self.shape != (shape := inputs.shape if packs else None):
            weight, self.bias = _fuse_weights(self.chain)
            self.weight = prepack(conv, weight, inputs) if packs else weight
            self.shape = shape
        if packs:
            return convolve(conv, inputs, self.weight, self.bias, "relu" if rectified else "none")
        output: Tensor = conv._conv_forward(inputs, self.weight, self.bias)
        return output.relu_() if rectified else output


def _fuse_weights(chain: ConvChain) -> tuple[Tensor, Tensor]:
    conv, norm = chain.conv, chain.norm
    # a norm that uses the batch's own moments is not folded
    assert norm and norm.running_mean is not None and norm.running_var is not None
    moments = norm.running_mean, norm.running_var, norm.eps
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *moments, norm.weight, norm.bias)
    return weight.detach().contiguous(memory_format=LAST), bias.detach()


def _make_pass_on(layer: nn.Module, waiting: Waiting) -> Callable[..., Any]:
    plain = layer.forward
    rest: Any = layer if type(layer).__name__ == NORM_AND_ACTIVATION else None

    def run(*args: Any, **kwargs: Any) -> Any:
        tensor, behind = waiting.get(id(args[0]), NOTHING) if args else NOTHING
        if tensor is None or tensor is not args[0] or behind[0] is not layer:
            return plain(*args, **kwargs)
        del waiting[id(tensor)]
        if behind[1:]:
            waiting[id(tensor)] = tensor, behind[1:]
        return rest.act(rest.drop(tensor)) if rest else tensor

    return run
