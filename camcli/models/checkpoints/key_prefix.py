"""Strips the prefix that wrappers put before the names of weights, such as `module.`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from camcli.models.model_spec import Weights

# the least share of a model's weights that a checkpoint of the same architecture has
SAME_ARCHITECTURE = 0.5
# an average of the weights, kept beside them in the same state dict, is what scripts evaluate
AVERAGE = re.compile(r"(^|[._])(ema|teacher)[._]")


@dataclass(frozen=True)
class UnprefixedWeights:
    """Weights without the prefix of their names, and the names of those that lie outside of it."""

    weights: Weights
    outside: tuple[str, ...]
    prefix: str = ""


def strip_prefix(weights: Weights, own_names: Iterable[str]) -> UnprefixedWeights:
    """Strips the prefix under which most of a model's own names are found, whatever it is.

    DataParallel puts `module.` before them, torch.compile `_orig_mod.`, Lightning mostly `model.`.
    A classifier beside the backbone (`backbone.` and `head.`, as in OpenMMLab's files) is taken,
    too.
    """
    own = set(own_names)
    prefix = _find_prefix(weights, own)
    origin = {k.removeprefix(prefix): k for k in weights if k.startswith(prefix)}
    parent = prefix[: prefix.rstrip(".").rfind(".") + 1]
    for root in (parent, f"{parent}head.") if prefix else ():
        matched = {name: root + name for name in own if root + name in weights}
        origin = {**matched, **origin}
    outside = weights.keys() - origin.values()
    stripped = {name: weights[key] for name, key in origin.items()}
    return UnprefixedWeights(stripped, tuple(key for key in weights if key in outside), prefix)


def _find_prefix(names: Collection[str], own: set[str]) -> str:
    prefixes, by_suffix = _list_cuts(tuple(names))
    hits = Counter(prefix for name in own for prefix in by_suffix.get(name, ()))
    # a handful of weights may stand under the same names by chance, in another place
    fewest = max(1, SAME_ARCHITECTURE * min(len(names), len(own)))
    likely = [prefix for prefix in prefixes if hits[prefix] >= fewest]
    return max(likely, key=lambda p: (hits[p], bool(AVERAGE.search(p)), -len(p)), default="")


@lru_cache(maxsize=4)
def _list_cuts(names: tuple[str, ...]) -> tuple[tuple[str, ...], Mapping[str, Sequence[str]]]:
    """Cuts names at each dot: all prefixes in order, and those in front of each suffix."""
    by_suffix: dict[str, list[str]] = {}
    prefixes: dict[str, None] = {}
    for name in names:
        for cut in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            prefixes[name[:cut]] = None
            by_suffix.setdefault(name[cut:], []).append(name[:cut])
    return tuple(prefixes), by_suffix
