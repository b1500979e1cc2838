"""Folds batch norms, and rectifiers behind them, into the convolutions in front, for many passes.

A pass is watched: a convolution can be folded if only a batch norm reads its output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NamedTuple, TypeVar
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torchs_module
from torch.nn.utils.fusion import fuse_conv_bn_weights

from camcli.models.acceleration.conv_output_tracer import (
    NORM_AND_ACTIVATION,
    ConvChain,
    is_norm,
    trace_conv_outputs,
)
from camcli.models.acceleration.faster_forwards import is_accelerated
from camcli.models.acceleration.memory_format import accepts_channels_last
from camcli.models.acceleration.onednn_conv import (
    OPERATORS,
    can_fold_conv,
    can_prepack,
    convolve,
    describe_rectifier,
    is_depthwise,
    is_large,
    is_plain,
    is_prepacking_supported,
    prepack,
)
from camcli.models.same_padding import find_same_padding, pads_same
from camcli.models.state import (
    has_patched_forward,
    list_modules,
    preserve_state,
)

Result = TypeVar("Result")
# as a share of the largest logit; rounding makes 1e-6
TOLERANCE = 1e-4
NOTHING: tuple[None, tuple[object, ...]] = (None, ())
LAST = torch.channels_last
# hooks of all modules: torch 2.6 has no function that asks for them
GLOBAL_HOOKS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
)


class PackedWeights(NamedTuple):
    """A folded weight that is prepacked, its bias, and the padding where that is another one.

    `around` is what the convolution pads: left, right, top, bottom.
    """

    weight: Tensor
    bias: Tensor
    padding: tuple[int, int] | None
    around: tuple[int, int, int, int] | None


class FoldedWeights:
    """A convolution's weight and bias with a norm folded in, made when they are first asked for."""

    def __init__(self) -> None:
        self.plain: tuple[Tensor, Tensor] | None = None
        self.packed: PackedWeights | None = None
        # the shape that the weight is prepacked for, and that asked for last
        self.shape: torch.Size | None = None
        self.last_shape: torch.Size | None = None

    def forget(self) -> None:
        """Forgets them, because those that they were made of have changed."""
        self.plain = self.packed = None

    def get_plain(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        """Returns them as they are."""
        if self.plain is None:
            self.plain = _fuse_weights(conv, norm)
        return self.plain

    def get_packed(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, inputs: Tensor) -> PackedWeights:
        """Returns them with the weight prepacked, if need be for inputs of another shape."""
        shape, is_usual = inputs.shape, inputs.shape == self.last_shape
        around = find_same_padding(conv, shape) if pads_inside(conv) else None
        # prepacked for another shape it is slower, but laying it out anew takes longer still
        is_other = shape != self.shape and is_usual
        if self.packed is None or is_other or self.packed.around != around:
            weight, bias = _fuse_weights(conv, norm)
            weight, padding = _take_padding(weight, around) if around else (weight, None)
            packed = prepack(conv, weight, inputs, padding)
            self.packed, self.shape = PackedWeights(packed, bias, padding, around), shape
        self.last_shape = shape
        return self.packed


class _Waiting(dict[int, tuple[Tensor, tuple[object, ...]]]):
    """Outputs in which norm and ReLU are done already, with the forwards that would do them.

    They are of passes in one thread; layers run in others as they were written.
    """

    thread: int | None = None


class ConvBnFolding:
    """The convolutions of a model that are folded with their norms and ReLUs while passes run.

    Without chains it folds nothing.  It keeps no layer alive.
    """

    def __init__(
        self,
        chains: Iterable[ConvChain],
        weights: Callable[[ConvChain], FoldedWeights] = lambda _: FoldedWeights(),
    ) -> None:
        self.waiting = _Waiting()
        self._forwards: list[tuple[ref[nn.Module], Callable[..., Any]]] = []
        known: dict[nn.Module, _PassOn] = {}
        for chain in chains:
            # a norm may stand behind several convolutions
            behind = tuple(
                known.setdefault(layer, _PassOn(layer, self.waiting)) for layer in chain.behind
            )
            conv = _FoldedConv(chain, weights(chain), behind, self.waiting)
            self._forwards.append((ref(chain.conv), conv))
        self._forwards += [(ref(layer), forward) for layer, forward in known.items()]

    @property
    def layers(self) -> list[nn.Module]:
        """The layers that have another forward while it runs; none once a pass went another way."""
        return [layer for reference, _ in self._forwards if (layer := reference())]

    def run_folded(self, run: Callable[[], Result]) -> Result:
        """Runs a pass folded; runs it once more as it was written if it took another path."""
        with self._stand_in():
            output = run()
            if not self.waiting:
                return output
        self._forwards.clear()
        return run()

    @contextmanager
    def _stand_in(self) -> Iterator[None]:
        # by hand: a context for each layer takes a part of a small network's pass
        states = [(vars(layer), f) for reference, f in self._forwards if (layer := reference())]
        own = [(state, state["forward"]) for state, _ in states if "forward" in state]
        self.waiting.thread = get_ident()
        try:
            for state, forward in states:
                state["forward"] = forward
            yield
        finally:
            for state, _ in states:
                state.pop("forward", None)
            for state, forward in own:
                state["forward"] = forward
            self.waiting.thread = None
            self.waiting.clear()


def find_foldable(module: nn.Module, inputs: Tensor) -> ConvBnFolding:
    """Finds the convolutions that can be folded, and checks them by a dry run.  [1 3 H W]"""
    layers = list_modules(module)
    if not may_fold(layers):
        return ConvBnFolding(())
    if not accepts_channels_last(module, inputs):
        return ConvBnFolding(())
    inputs = inputs.contiguous(memory_format=LAST)
    with torch.no_grad(), preserve_state(module):
        with trace_conv_outputs(layers) as watch:
            wanted = module(inputs)
        folding = ConvBnFolding(watch.list_chains())
        folded_output = folding.run_folded(lambda: module(inputs))
    return folding if is_close(folded_output, wanted) else ConvBnFolding(())


def may_fold(layers: Iterable[nn.Module]) -> bool:
    """Tells whether there is something to fold, and nothing that a folded pass would go past."""
    return (
        any(map(is_norm, layers))
        and any(map(can_fold_conv, layers))
        # a compiled block runs as it was written while a part of it has another forward
        and all(is_accelerated(layer) or not has_patched_forward(layer) for layer in layers)
        and not torch.is_autocast_enabled("cpu")
        and not has_global_hooks()
    )


def has_global_hooks() -> bool:
    """Tells whether somebody hooks all modules at once."""
    return any(getattr(torchs_module, name) for name in GLOBAL_HOOKS)


def is_close(actual: Any, expected: Any) -> bool:
    """Tells whether two tensors are the same but for rounding."""
    if not isinstance(expected, Tensor) or actual.shape != expected.shape:
        return False
    # a difference of infinities is NaN, which is never small
    return bool((actual - expected).abs().max() <= TOLERANCE * expected.abs().max())


class _FoldedConv:
    """A convolution with a batch norm folded into its weight and bias, and perhaps a ReLU."""

    def __init__(
        self,
        chain: ConvChain,
        weights: FoldedWeights,
        behind: tuple[object, ...],
        waiting: _Waiting,
    ) -> None:
        assert chain.norm
        self.conv, self.norm = ref(chain.conv), ref(chain.norm)
        self.rectifier = None if chain.relu is None else describe_rectifier(chain.relu)
        self.packs = can_prepack(chain.conv)
        self.may_pack = is_prepacking_supported(OPERATORS)
        self.weights, self.behind, self.waiting = weights, behind, waiting

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Convolves, norms and rectifies; the norm and the ReLU then pass the output on."""
        conv: Any = self.conv()
        if get_ident() != self.waiting.thread or not _is_float32(*args, **kwargs):
            return type(conv).forward(conv, *args, **kwargs)
        output = self._convolve(conv, self.norm(), args[0])
        self.waiting[id(output)] = output, self.behind
        return output

    def _convolve(self, conv: Any, norm: Any, inputs: Tensor) -> Tensor:
        packs = self.may_pack and is_plain(inputs) and (self.packs or is_large(conv, inputs))
        if pads_same(conv) and not (packs and pads_inside(conv)):
            inputs = F.pad(inputs, find_same_padding(conv, inputs.shape))
        if packs:
            weight, bias, padding, _ = self.weights.get_packed(conv, norm, inputs)
            return convolve(conv, inputs, weight, bias, self.rectifier, padding)
        output: Tensor = conv._conv_forward(inputs, *self.weights.get_plain(conv, norm))
        return self.rectifier.rectify(output) if self.rectifier else output


def _is_float32(inputs: Any = None, *more: Any, **others: Any) -> bool:
    return (
        type(inputs) is Tensor
        and not more
        and not others
        and inputs.dtype == torch.float32
        and inputs.is_cpu
        and not torch.is_autocast_enabled("cpu")
    )


def _fuse_weights(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    # a norm that uses the batch's own moments is not folded
    assert norm.running_mean is not None and norm.running_var is not None
    moments = norm.running_mean, norm.running_var, norm.eps
    # tensors of inference mode would be of no use to a pass outside it
    with torch.inference_mode(False), torch.no_grad():
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, *moments, norm.weight, norm.bias
        )
        return weight.detach().contiguous(memory_format=LAST), bias.detach()


def pads_inside(conv: nn.Conv2d) -> bool:
    """Tells whether a convolution's unequal padding goes into its weight (camviz help speed)."""
    return pads_same(conv) and is_depthwise(conv)


def _take_padding(
    weight: Tensor, around: tuple[int, int, int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """Widens a weight by zeros, so that equal padding on both sides does the same.

    oneDNN has no other, and a padded copy of the inputs takes longer than the zeros.
    """
    left, right, top, bottom = around
    with torch.inference_mode(False), torch.no_grad():
        wide = F.pad(weight, (right - left, 0, bottom - top, 0))
        return wide.contiguous(memory_format=LAST), (bottom, right)


class _PassOn:
    """A norm or a ReLU that has nothing left to do where the convolution in front did it."""

    def __init__(self, layer: nn.Module, waiting: _Waiting) -> None:
        self.layer, self.waiting = ref(layer), waiting
        self.has_rest = type(layer).__name__ == NORM_AND_ACTIVATION

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Passes an output on, or does what the layer does."""
        waiting = self.waiting
        layer: Any = self.layer()
        tensor, behind = waiting.get(id(args[0]), NOTHING) if args else NOTHING
        if (
            tensor is None
            or tensor is not args[0]
            or behind[0] is not self
            or get_ident() != waiting.thread
        ):
            return type(layer).forward(layer, *args, **kwargs)
        del waiting[id(tensor)]
        if behind[1:]:
            waiting[id(tensor)] = tensor, behind[1:]
        return layer.act(layer.drop(tensor)) if self.has_rest else tensor
