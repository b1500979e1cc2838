"""Carries weights between transformers' networks and those of timm that compute the same.

Whether two networks compute the same is seen on a picture of noise, never taken from their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from camcli.errors import CheckpointError, ModelError
from camcli.models.checkpoints.checkpoint import Checkpoint
from camcli.models.checkpoints.cross_library_keys import match_by_order
from camcli.models.checkpoints.key_renaming import NAMINGS, expand_name, reshape_like
from camcli.models.checkpoints.state_dict_matching import (
    ANOTHER_NETWORK,
    FittedWeights,
    list_faults,
)
from camcli.models.checkpoints.weight_loading import copy_weights
from camcli.models.model_spec import BuiltModel, ModelSpec, Weights
from camcli.models.outputs.logits import select_output

# the largest difference between two networks' outputs, of what two pictures make a difference of:
# a network that says the same of all pictures would be like any other
ROUNDING = 1e-5
# weights of transformers' that nothing is computed of here
UNUSED = ("embeddings.mask_token",)
TOKENS = "last_hidden_state"


@dataclass(frozen=True)
class Part:
    """A weight of another network, or one of `count` equal shares of it, by its place."""

    name: str
    place: int = 0
    count: int = 1


def carry_weights_between(
    theirs: FittedWeights, source: BuiltModel, built: BuiltModel
) -> FittedWeights | None:
    """Carries weights over from a network of timm or transformers to its twin of the other.

    `theirs` are the weights that fit `source`, and `built` is to have them.  Returns None where it
    is not known which weight becomes which, and a fault where the two give other outputs.
    """
    copy_weights(source.module, theirs)
    other = None
    given, own = source.module.state_dict(), built.module.state_dict()
    for parts in _list_matches(given, own, getattr(built.module, "base_model_prefix", "")):
        weights = {**own, **{name: _take(given, part, own[name]) for name, part in parts.items()}}
        faults = list_faults(weights, own)
        fitted_weights = replace(theirs, weights=weights, faults=faults, eps={}, naming=None)
        if fitted_weights.faults:
            continue
        copy_weights(built.module, fitted_weights)
        _copy_eps(source.module, built.module, parts)
        if computes_the_same(source, built):
            return fitted_weights
        other = replace(fitted_weights, faults=((ANOTHER_NETWORK, "other outputs"),))
    return other


def other_outputs_error(saved: Checkpoint, request: ModelSpec, name: str) -> CheckpointError:
    """Says that weights fit a network in which they give other outputs than in their own.

    `request` is the network that was asked for, and `name` that of their own.
    """
    return CheckpointError(
        f"Checkpoint {str(saved.path)!r} has the weights of {name!r}, and gives other outputs in "
        f"{request.name!r}, as far as names and order tell which weight is which: the two networks "
        f"differ in what they compute. Load it with --model {name}."
    )


def align_eps(source: BuiltModel, built: BuiltModel) -> None:
    """Lets norms add to their variances what those of the other network do, one after the other.

    The norms of `built` take the numbers of `source`; nothing is done where there are more of one.
    """
    theirs, own = (
        [part for part in each.module.modules() if isinstance(getattr(part, "eps", None), float)]
        for each in (source, built)
    )
    for norm, other in zip(own, theirs, strict=True) if len(own) == len(theirs) else ():
        norm.eps = other.eps


def computes_the_same(a: BuiltModel, b: BuiltModel) -> bool | None:
    """Tells whether two networks give the same outputs for two pictures of noise, None if unknown.

    Networks without a classifier may give the same tokens in its place.  Pictures have the size of
    the second: Swin of transformers is another network once it has seen a smaller one.
    """
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, b.in_chans, *b.preprocessing.size, generator=draw)
    # the first may take no pictures of this size
    with suppress(RuntimeError, ValueError, AssertionError, ModelError):
        mine, other = (_compute_outputs(built, pictures) for built in (a, b))
        return any(_is_same(x, y) for x, y in zip(mine, other, strict=True))
    return None


def _is_same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or a.shape != b.shape:
        return False
    return bool((a - b).abs().max() <= ROUNDING * (a[0] - a[1]).abs().max())


def _compute_outputs(built: BuiltModel, image: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Returns the output that counts, and the tokens of a network without a classifier."""
    module: Any = built.module
    training = module.training
    try:
        with torch.no_grad():
            output = module.double().eval()(image.double())
            if isinstance(output, Tensor):
                tokens = None if built.num_classes else module.forward_features(image.double())
                return output, tokens
            chosen: Tensor = select_output(output, built.reading.key if built.reading else None)
            return chosen, None if built.num_classes else output.get(TOKENS)
    finally:
        module.float().train(training)


def _list_matches(given: Weights, own: Weights, prefix: str) -> Iterator[Mapping[str, Part]]:
    """Yields which weight becomes which, by names that are known and by their order."""
    yield from _match_by_names(given, own, prefix)
    with suppress(RuntimeError, ValueError):
        pairs = match_by_order(given, own)
        if pairs:
            yield {name: Part(theirs) for name, theirs in pairs.items()}


def _match_by_names(given: Weights, own: Weights, prefix: str) -> Iterator[Mapping[str, Part]]:
    """Yields which of timm's weights become transformers', which may have them in several."""
    plain = {name.removeprefix(f"{prefix}."): name for name in own}
    needed = {name for name, weight in own.items() if weight.is_floating_point()}
    needed -= {plain[name] for name in UNUSED if name in plain}
    for naming in NAMINGS:
        parts: dict[str, Part] = {}
        for name, translated in naming.translate(given).items():
            shares = expand_name(translated)
            for place, share in enumerate(shares):
                if share in plain:
                    parts[plain[share]] = Part(name, place, len(shares))
        if needed <= parts.keys():
            yield parts


def _take(given: Weights, part: Part, own: Tensor) -> Tensor:
    """Returns a weight, or its share, in the shape that the other network has it."""
    whole = given[part.name]
    share = whole.chunk(part.count)[part.place] if part.count > 1 else whole
    if share.ndim == own.ndim == 3 and share.shape[1] + 1 == own.shape[1]:
        # where timm adds the class token's position to the token
        return torch.cat([torch.zeros_like(own[:, :1]), share], 1)
    return reshape_like(share, own)


def _copy_eps(source: nn.Module, target: nn.Module, parts: Mapping[str, Part]) -> None:
    """Lets norms add to their variances what the others' do."""
    for name, part in parts.items():
        theirs, own = (
            module.get_submodule(each.rpartition(".")[0])
            for module, each in ((source, part.name), (target, name))
        )
        if isinstance(getattr(theirs, "eps", None), float) and hasattr(own, "eps"):
            own.eps = theirs.eps
