"""The terms that name methods: their names, METHOD@LAYER, and words that stand for several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from camcli.errors import UsageError
from camcli.method_info import METHOD_INFO
from camcli.records import BestFor, Combination
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
    """Returns the named methods; `ALL` becomes all methods, in the order of `method_info`.

    `BEST` is left out, since only a model decides what it stands for.
    """
    if ALL in methods:
        return tuple(METHOD_INFO)
    named = (split_term(term)[0] for term in methods if term != BEST)
    return tuple(dict.fromkeys(named))


def check_methods(
    terms: Sequence[str], combination: Combination | None, best_for: BestFor | None
) -> None:
    """Raises UsageError for methods that exclude each other or an option; needs no model."""
    if best_for is not None and BEST not in terms:
        raise UsageError(f"--best-for {best_for} belongs to --method best: give both, or neither.")
    placed = [term for term in terms if AT in term]
    if combination is None and placed:
        method, layer = split_term(placed[0])
        raise UsageError(
            f"{placed[0]!r} names a method's own layer, which is for methods that are combined: "
            f"give --combine product, or --method {method} --target-layers {layer}."
        )
    if combination is not None and (special := {ALL, BEST} & set(terms)):
        raise UsageError(
            f"--combine {combination} combines the named methods, and {special.pop()!r} stands for "
            "other methods: leave one of the two out."
        )
    for term in placed:
        method, layer = split_term(term)
        if not layer:
            raise UsageError(f"{term!r} names no layer: write METHOD{AT}LAYER, or {method}.")
