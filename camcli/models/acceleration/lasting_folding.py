"""Folds norms into convolutions within a run, or a block in which weights are prepacked.

What can be folded is traced once, by what passes look at, and proved by a dry run; folded weights
are kept between passes until a weight is seen to have changed, and at most to the block's end: no
comparison at next to no price sees every change, and outside of a block anything may be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from camcli.models.acceleration.change_watch import AttributeWatch, TensorWatch, can_watch
from camcli.models.acceleration.conv_bn_folding import (
    ConvBnFolding,
    FoldedWeights,
    has_global_hooks,
    is_close,
    may_fold,
)
from camcli.models.acceleration.conv_output_tracer import ConvChain, is_norm, trace_conv_outputs
from camcli.models.acceleration.faster_forwards import is_accelerated
from camcli.models.acceleration.memory_format import accepts_channels_last
from camcli.models.acceleration.onednn_conv import can_fold_conv
from camcli.models.acceleration.prepack_cache import PrepackCache, find_prepack_cache
from camcli.models.state import ModelCache, NestedCall, list_parts, seed_random_state

Result = TypeVar("Result")
# pictures in front of the dry run, which a single pass would not repay (camviz help speed)
FEWEST_PICTURES = 1
WHOLE_MODEL = ""
# of a gradient's length
KINKS = 0.05


@dataclass(frozen=True)
class WatchedPass(Generic[Result]):
    """A pass whose outputs at some layers are kept, and what a folding must not change of them.

    `run` takes inputs [b 3 H W], of which it makes a copy, and whether a graph is recorded.
    """

    layers: tuple[str, ...]
    graph: bool
    run: Callable[[Tensor, bool], Result]
    list_outputs: Callable[[Result], Any]


class _Places(NamedTuple):
    """A chain by the places of its layers among the model's: layers would keep the model alive."""

    conv: int
    norm: int
    relu: int | None

    def find_chain(self, layers: Sequence[nn.Module]) -> ConvChain:
        """Returns the chain of the layers that stand at these places."""
        conv: Any = layers[self.conv]
        norm: Any = layers[self.norm]
        return ConvChain(conv, None, norm, None if self.relu is None else layers[self.relu])


@dataclass
class _Passes:
    """Passes that look at the same layers: how many pictures passed, and what can be folded."""

    pictures: int = 0
    # None until it was looked for
    chains: list[_Places] | None = None
    folding: ConvBnFolding | None = None


@dataclass
class _Memory:
    """What is remembered of a model while it stays as it is."""

    attributes: AttributeWatch
    # the block's, which does not outlast it
    cache: ref[PrepackCache]
    passes: dict[Hashable, _Passes] = field(default_factory=dict)
    weights: dict[tuple[int, int], FoldedWeights] = field(default_factory=dict)
    watch: TensorWatch | None = None


_memories: ModelCache[_Memory] = ModelCache()


def run_folded(module: nn.Module, inputs: Tensor, watched: WatchedPass[Result]) -> Result:
    """Runs a pass of inputs [b 3 H W]; folds it from the second one in a block of prepacking on.

    The model is held and evaluated.
    """

    def run() -> Result:
        return watched.run(inputs, watched.graph)

    parts = list_parts(module)
    cache = find_prepack_cache(parts)
    if cache is None:
        _memories.of(module).clear()
        return run()
    layers = parts.modules
    if not _is_plain(inputs):
        return run()
    memory = _recall(module, layers, cache)
    key = watched.layers, watched.graph, tuple(inputs.shape[1:])
    passes = memory.passes.setdefault(key, _Passes())
    if passes.chains == [] or not _is_as_written(layers):
        return run()
    passes.pictures += len(inputs)
    if passes.chains is None and passes.pictures - len(inputs) >= FEWEST_PICTURES:
        passes.chains = _find_chains(module, layers, inputs[:1], watched)
    if not passes.chains or not accepts_channels_last(module, inputs):
        return run()
    if not _prepare_weights(memory, passes, layers):
        return run()
    if passes.folding is None:
        chains = {places.find_chain(layers): places for places in passes.chains}
        passes.folding = ConvBnFolding(chains, lambda chain: memory.weights[chains[chain][:2]])
    result = passes.folding.run_folded(run)
    if not passes.folding.layers:
        # it took another path
        passes.chains = []
    return result


def _is_plain(inputs: Tensor) -> bool:
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _is_as_written(layers: Sequence[nn.Module]) -> bool:
    """Tells whether no part of a model has hooks, or another forward than one of ours."""
    if "forward" in vars(layers[0]) or has_global_hooks():
        return False
    # what hooks the model itself sees what goes in and comes out
    for layer in layers[1:]:
        state = vars(layer)
        if state["_forward_hooks"] or state["_forward_pre_hooks"]:
            return False
        if "forward" in state and not is_accelerated(layer):
            return False
    return True


def _recall(module: nn.Module, layers: Sequence[nn.Module], cache: PrepackCache) -> _Memory:
    known = _memories.of(module)
    memory = known.get(WHOLE_MODEL)
    is_of_block = memory is not None and memory.cache() is cache
    if memory is None or not is_of_block or not memory.attributes.is_unchanged(layers):
        memory = known[WHOLE_MODEL] = _Memory(AttributeWatch(layers), ref(cache))
    return memory


def _find_chains(
    module: nn.Module, layers: Sequence[nn.Module], inputs: Tensor, watched: WatchedPass[Any]
) -> list[_Places]:
    """Finds what can be folded, by tracing the pass of a picture, and repeating it folded."""
    if not may_fold(layers) or not accepts_channels_last(module, inputs):
        return []
    try:
        # without a graph, which would keep outputs that nobody else reads
        with trace_conv_outputs(layers) as tracer:
            expected = _run_alone(watched, inputs, graph=False)
        chains = list(filter(_can_fold, tracer.list_chains()))
        folding = ConvBnFolding(chains)
        actual = folding.run_folded(partial(_run_alone, watched, inputs, graph=watched.graph))
        is_same = _are_close(actual, expected)
        if watched.graph and is_same:
            expected = _run_alone(watched, inputs, graph=True)
            pairs = zip(_find_gradients(actual), _find_gradients(expected), strict=True)
            is_same = all(_is_same_gradient(*pair) for pair in pairs)
    except NestedCall:  # nothing is wrong with the model
        raise
    except Exception:  # a model that takes no single picture, or runs layers again on the way back
        return []
    if not is_same or not folding.layers:
        return []
    places = {layer: place for place, layer in enumerate(layers)}
    return [_find_places(chain, places) for chain in chains]


def _run_alone(watched: WatchedPass[Any], inputs: Tensor, *, graph: bool) -> list[Tensor]:
    """Runs a pass that leaves the random state as it was, and lists the tensors in its outputs."""
    with torch.random.fork_rng([inputs.device] if inputs.is_cuda else ()):
        seed_random_state(0, inputs.device)
        leaves = tree_leaves(watched.list_outputs(watched.run(inputs, graph)))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _find_gradients(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Finds the gradients of what is computed by that from which it is."""
    recorded = [output for output in outputs if output.requires_grad]
    starts = [output for output in recorded if output.is_leaf]
    with torch.enable_grad():
        ends = [output.float().sum() for output in recorded if not output.is_leaf]
    if not starts or not ends:
        return []
    return [g for g in torch.autograd.grad(ends, starts, allow_unused=True) if g is not None]


def _is_same_gradient(actual: Tensor, expected: Tensor) -> bool:
    # a unit at its kink passes another gradient on after each rounding
    return bool((actual - expected).norm() <= KINKS * expected.norm())


def _are_close(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return 0 < len(expected) == len(actual) and all(
        is_close(*pair) for pair in zip(actual, expected, strict=True)
    )


def _find_places(chain: ConvChain, places: dict[nn.Module, int]) -> _Places:
    assert chain.norm
    relu = None if chain.relu is None else places[chain.relu]
    return _Places(places[chain.conv], places[chain.norm], relu)


def _can_fold(chain: ConvChain) -> bool:
    return (
        can_fold_conv(chain.conv)
        and is_norm(chain.norm)
        # some keep their norms in training mode
        and not chain.norm.training
        and all(map(can_watch, _list_tensors(chain.conv, chain.norm)))
    )


def _list_tensors(conv: nn.Module, norm: nn.Module) -> list[Tensor | None]:
    # a module's own way to find them is slow
    of_conv, of_norm, moments = conv._parameters, norm._parameters, norm._buffers
    return [
        *(of_conv.get("weight"), of_conv.get("bias")),
        *(of_norm.get("weight"), of_norm.get("bias")),
        *(moments.get("running_mean"), moments.get("running_var")),
    ]


def _prepare_weights(memory: _Memory, passes: _Passes, layers: Sequence[nn.Module]) -> bool:
    """Sees to the folded weights of a pass; tells whether it can run with them.

    Where weights were changed, it runs as it was written, and the next one folds them anew: who
    trains between two passes changes them each time.
    """
    known = memory.watch is not None and memory.watch.is_unchanged(*_look(memory.weights, layers))
    if known and passes.folding is not None:
        return True
    were_changed = bool(memory.weights) and not known
    if were_changed:
        for weights in memory.weights.values():
            weights.forget()
        memory.watch = None
    chains = passes.chains or []
    if not all(_can_fold(places.find_chain(layers)) for places in chains):
        memory.weights.clear()
        memory.passes.clear()
        return False
    for places in chains:
        memory.weights.setdefault(places[:2], FoldedWeights())
    memory.watch = TensorWatch(*_look(memory.weights, layers))
    return not were_changed


def _look(
    pairs: Iterable[tuple[int, int]], layers: Sequence[nn.Module]
) -> tuple[list[Tensor | None], list[Any]]:
    """Returns all tensors that are folded, and what else of the layers counts."""
    tensors: list[Tensor | None] = []
    settings: list[Any] = []
    for place, behind in pairs:
        conv, norm = layers[place], layers[behind]
        tensors += _list_tensors(conv, norm)
        settings += type(conv), type(norm), norm.training, norm.eps
    return tensors, settings
