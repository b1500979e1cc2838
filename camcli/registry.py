"""Methods and evidence by name, checked when they are imported.

A method is a pure function.  Its positional parameters name the evidence it needs, its
keyword-only parameters are its options.  Evidence is a function too: it is named by what it
returns, and asks for other evidence by name.  The names of all evidence stand in `EVIDENCE`, so
that a method that asks for something unknown fails when its module is imported, and methods need
not know the engine.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, Literal, TypeVar

from camcli.errors import UnknownName, UsageError


class Scope(Flag):
    """How often a piece of evidence exists: once a batch, or for each layer, category, or both."""

    BATCH = 0
    LAYER = auto()
    CATEGORY = auto()


@dataclass(frozen=True)
class Declaration:
    """What is known about a piece of evidence before anything computes it."""

    scope: Scope
    backward: bool
    meaning: str


EVIDENCE: Mapping[str, Declaration] = {
    "recording": Declaration(Scope.BATCH, False, "what one forward pass left at the layers"),
    "logits": Declaration(Scope.BATCH, False, "the model's output [b n]"),
    "categories": Declaration(Scope.BATCH, False, "the classes that are explained [b k]"),
    "scores": Declaration(Scope.CATEGORY, False, "the number that is explained [b]"),
    "activations": Declaration(Scope.LAYER, False, "a target layer's output as maps [b c h w]"),
    "raw_gradients": Declaration(Scope.CATEGORY, True, "the score's gradients at every layer"),
    "gradients": Declaration(Scope.LAYER | Scope.CATEGORY, True, "the same as maps [b c h w]"),
    "class_weights": Declaration(
        Scope.LAYER | Scope.CATEGORY, True, "the score's gradient by the pooled features [b c]"
    ),
    "tail": Declaration(Scope.LAYER, False, "whether what lies behind a layer runs by itself"),
    "score": Declaration(Scope.CATEGORY, False, "scores of altered inputs, in chunks"),
    "rescore": Declaration(
        Scope.LAYER | Scope.CATEGORY, False, "scores when a layer puts out other maps, in chunks"
    ),
}

Gives = Literal["weighted activations", "map"]


@dataclass(frozen=True)
class Option:
    """A method's option: its type and default, read off the signature."""

    name: str
    type: type
    default: Any


@dataclass(frozen=True)
class Method:
    """A registered method and what its signature says about it."""

    name: str
    function: Callable[..., Any]
    gives: Gives
    evidence: tuple[str, ...]
    options: tuple[Option, ...]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


@dataclass(frozen=True)
class Evidence:
    """A registered piece of evidence and what it asks for, in order."""

    name: str
    function: Callable[..., Any]
    asks_for: tuple[str, ...]


# what the engine itself hands to evidence, besides other evidence
CONTEXT = ("probe", "layer", "slot")

METHODS: dict[str, Method] = {}
EVIDENCE_FUNCTIONS: dict[str, Evidence] = {}

# what `--help` shows without importing torch; a test holds it against METHODS
METHOD_TITLES: Mapping[str, str] = {
    "gradcam": "gradients averaged over the map weight the channels",
    "gradcam++": "positive gradients, weighted by their higher derivatives",
    "xgradcam": "gradients weighted by the normalised activations",
    "layercam": "positive gradients weight each place by itself",
    "hirescam": "gradients weight each place by itself, signed",
    "eigencam": "first principal component of the activations; no class",
    "eigengradcam": "first principal component of gradient times activation",
    "cam": "the linear head's own weights (pooling and one linear layer only)",
    "randomcam": "random weights: the baseline every method must beat",
}

Function = TypeVar("Function", bound=Callable[..., Any])


def method(name: str, *, gives: Gives) -> Callable[[Function], Function]:
    """Registers a method; raises TypeError for evidence that is not declared."""

    def register(function: Function) -> Function:
        positional, keyword_only = _parameters(function)
        _check_declared(function, positional)
        options = tuple(Option(p.name, type(p.default), p.default) for p in keyword_only.values())
        METHODS[name] = Method(name, function, gives, tuple(positional), options)
        return function

    return register


def evidence(function: Function) -> Function:
    """Registers evidence under the function's name; its parameters are evidence, or the context.

    Raises TypeError for a name that is not declared, or evidence that exists more often than it.
    """
    name = function.__name__
    positional, _ = _parameters(function)
    others = [p for p in positional if p not in CONTEXT]
    _check_declared(function, [name, *others])
    for other in others:
        if EVIDENCE[other].scope & ~EVIDENCE[name].scope:
            raise TypeError(f"Evidence {name!r} cannot ask for {other!r}: it exists more often.")
    EVIDENCE_FUNCTIONS[name] = Evidence(name, function, tuple(positional))
    return function


def needed(methods: Iterable[Method]) -> frozenset[str]:
    """Returns all evidence that the methods need, directly or through other evidence."""
    found: set[str] = set()
    waiting = [name for m in methods for name in m.evidence]
    while waiting:
        name = waiting.pop()
        if name in EVIDENCE and name not in found:
            found.add(name)
            waiting += EVIDENCE_FUNCTIONS[name].asks_for
    return frozenset(found)


def depends_on_category(name: str) -> bool:
    """Tells whether a method's map is another one for another category."""
    return any(EVIDENCE[e].scope & Scope.CATEGORY for e in METHODS[name].evidence)


def spelling(name: str) -> str:
    """Reduces a name to what counts when names are compared: `Grad-CAM_plusplus` -> `gradcam++`."""
    plain = re.sub(r"[-_ ]", "", name.lower())
    return re.sub(r"(plus|p|\+)(plus|p|\+)$", "++", plain)


def method_name(given: str) -> str:
    """Finds a method's registered name; raises UnknownName with the closest ones."""
    for name in METHOD_TITLES:
        if spelling(name) == spelling(given):
            return name
    raise UnknownName("method", given, METHOD_TITLES, "All: camviz methods")


def checked_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checks options against a method's signature; raises UnknownName or UsageError."""
    known = {option.name: option for option in METHODS[name].options}
    for key, value in given.items():
        if key not in known:
            raise UnknownName(f"option of {name}", key, known)
        if not isinstance(value, known[key].type):
            wanted = known[key].type.__name__
            raise UsageError(f"Option {key!r} of {name} takes {wanted}, not {value!r}.")
    return dict(given)


def _parameters(
    function: Callable[..., Any],
) -> tuple[list[str], dict[str, inspect.Parameter]]:
    parameters = inspect.signature(function).parameters
    keyword_only = {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    return [n for n in parameters if n not in keyword_only], keyword_only


def _check_declared(function: Callable[..., Any], names: Iterable[str]) -> None:
    for name in names:
        if name not in EVIDENCE:
            raise TypeError(
                f"{function.__qualname__} asks for {name!r}, which is not declared evidence."
            )
