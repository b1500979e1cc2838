"""What a person writes for methods: their names, METHOD@LAYER, and words that stand for several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from camcli.method_info import METHOD_INFO
from camcli.registry import ALL, find_method_name, normalise_name

BEST = "best"  # for what was measured to be best for the kind of network
COMBINED = "combined"  # what a map of several methods is called
AT = "@"  # METHOD@LAYER


def find_method_names(given: Iterable[str]) -> tuple[str, ...]:
    """Finds methods' registered names, or only `ALL` where that is among them.

    `BEST` stays as it is, and so does the layer of METHOD@LAYER.
    """
    names = [_find_term(name) for name in given]
    return (ALL,) if ALL in names else tuple(dict.fromkeys(names))


def _find_term(given: str) -> str:
    name, at, layer = given.partition(AT)
    if not at and normalise_name(name) in (ALL, BEST):
        return normalise_name(name)
    return find_method_name(name.strip()) + at + layer.strip()


def split_term(term: str) -> tuple[str, str]:
    """Splits METHOD@LAYER at its first @; without one the layer is ""."""
    method, _, layer = term.partition(AT)
    return method, layer


def expand_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """Returns the methods that are named: `ALL` are every one, in the order of the cards.

    What `BEST` stands for only a model tells.
    """
    if ALL in methods:
        return tuple(METHOD_INFO)
    named = (split_term(term)[0] for term in methods if term != BEST)
    return tuple(dict.fromkeys(named))
