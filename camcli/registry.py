"""Methods, evidence and metrics by name, checked when they are imported.

A method is a pure function.  Its positional parameters name the evidence it needs, its
keyword-only parameters are its options.  Evidence is a function too: it is named by what it
returns, and asks for other evidence by name.  `EVIDENCE` has the names of all evidence, so a method
that asks for an unknown one fails when it is imported, and methods need not know the engine.

A metric is a pure function, too: its positional parameters name inputs of `METRIC_INPUTS`, its
keyword-only parameters are its options, and its direction, range, cost and paper are data.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from math import isfinite
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

from camcli.errors import UnknownName, UsageError
from camcli.method_info import METHOD_INFO


class Scope(Flag):
    """How often a piece of evidence exists: once a batch, or for each part joined by `|`."""

    BATCH = 0
    LAYER = auto()
    CATEGORY = auto()
    # each method at each of its layers, also if the evidence does not depend on the layer
    METHOD = auto()


@dataclass(frozen=True)
class Declaration:
    """What is known about a piece of evidence before anything computes it."""

    scope: Scope
    backward: bool
    meaning: str


EVIDENCE: Mapping[str, Declaration] = {
    "inputs": Declaration(Scope.BATCH, False, "what the network is given [b 3 H W]"),
    "recording": Declaration(Scope.BATCH, False, "what one forward pass left at the layers"),
    "logits": Declaration(Scope.BATCH, False, "the model's output [b n]"),
    "categories": Declaration(Scope.BATCH, False, "the classes that are explained [b k]"),
    "references": Declaration(Scope.CATEGORY, False, "the classes of a contrast [b r], or None"),
    "target": Declaration(Scope.CATEGORY, False, "how logits become the number explained"),
    "scores": Declaration(Scope.CATEGORY, False, "the number that is explained [b]"),
    "activations": Declaration(Scope.LAYER, False, "a target layer's output as maps [b c h w]"),
    "raw_gradients": Declaration(Scope.CATEGORY, True, "the score's gradients at every layer"),
    "gradients": Declaration(Scope.LAYER | Scope.CATEGORY, True, "the same as maps [b c h w]"),
    "class_head": Declaration(
        Scope.LAYER | Scope.CATEGORY, True, "how the layer's maps make the class's map"
    ),
    "class_weights": Declaration(
        Scope.LAYER | Scope.CATEGORY, True, "what each channel counts in the class's map [b c]"
    ),
    "class_bias": Declaration(
        Scope.LAYER | Scope.CATEGORY, True, "what a head in front of pooling adds to it [b]"
    ),
    "gradient_cache": Declaration(Scope.METHOD, False, "the gradients of all categories so far"),
    "gradients_at": Declaration(
        Scope.LAYER | Scope.CATEGORY | Scope.METHOD, True, "the same gradients for other inputs"
    ),
    "unfused_context": Declaration(Scope.BATCH, True, "a pass that can be differentiated twice"),
    "curvature": Declaration(
        Scope.LAYER | Scope.CATEGORY, True, "the score's Hessian times the activations [b c h w]"
    ),
    "attention_pass": Declaration(Scope.BATCH, False, "what a pass with readable attention left"),
    "attention": Declaration(Scope.BATCH, False, "softmaxed, block by block, l x [b heads n n]"),
    "attention_gradients": Declaration(Scope.CATEGORY, True, "the score's gradients by all of it"),
    "readout_weights": Declaration(Scope.BATCH, False, "which tokens the score is read off [n]"),
    "token_grid": Declaration(Scope.BATCH, False, "which token stands at each cell [h w]"),
    "block_readouts": Declaration(Scope.BATCH, True, "the logits read off each block's tokens"),
    "block_gradients": Declaration(
        Scope.CATEGORY, True, "each block's score's gradients by its attention, l x [b heads q n]"
    ),
    "guided_pass": Declaration(
        Scope.BATCH,
        True,
        "a pass from the inputs on that goes back through positive gradients only",
    ),
    "guided_gradients": Declaration(
        Scope.CATEGORY, True, "the score's gradients at its inputs in such a pass [b 3 H W]"
    ),
    "prefix_by_row": Declaration(Scope.LAYER, False, "the outputs in front of a layer, by picture"),
    "rerun_by_row": Declaration(Scope.LAYER, False, "runs a picture with other maps at a layer"),
    "is_tail_separable": Declaration(Scope.LAYER, False, "whether the tail can run by itself"),
    "conv_bn_folding": Declaration(Scope.BATCH, False, "what is folded while altered inputs pass"),
    "score_cache": Declaration(Scope.METHOD, False, "the scores that a method asked for so far"),
    "score": Declaration(
        Scope.CATEGORY | Scope.METHOD, False, "scores of altered inputs, in chunks"
    ),
    "rescore": Declaration(
        Scope.LAYER | Scope.CATEGORY | Scope.METHOD,
        False,
        "scores when a layer puts out other maps, in chunks",
    ),
    "full_pass": Declaration(Scope.BATCH, True, "what a pass from the input on met of biases"),
    "full_gradients": Declaration(
        Scope.CATEGORY, True, "what the input and every bias put into the score"
    ),
    "recompute_logits": Declaration(Scope.LAYER, False, "logits when it does, in chunks"),
}

Gives = Literal["weighted activations", "map"]

# further results of methods, for each picture
DETAILS: Mapping[str, str] = {
    "score": "the number that is explained []",
    "residual": "what a map that should be complete leaves of the score []",
    "pixels": "what each value of the network's input counts, signed [3 H W]",
    "concepts": "the strengths of each concept [n h w]",
    "concept_logits": "what the model says of each concept alone [n classes], or [n 0]",
}

# the types of options, in words
KINDS: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    tuple: "numbers with commas between them",
}
BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Option:
    """A method's option: its type and default, read from the signature."""

    name: str
    type: type
    default: Any

    def __str__(self) -> str:
        """Its name, default and type, in the form of the command line."""
        shown = str(self.default).lower() if self.type is bool else repr(self.default)
        return f"{self.name}={shown} ({KINDS[self.type]})"

    def read(self, value: Any) -> Any:
        """Returns a value of the option's type, also from a text; raises ValueError."""
        text = isinstance(value, str)
        if self.type is bool and text and value.lower() in BOOLEANS:
            return BOOLEANS[value.lower()]
        if self.type in (int, float) and text:
            value = self.type(value)
        number = not isinstance(value, bool) and self.type in (int, float)
        if self.type is int and number and isinstance(value, Integral):
            return int(value)
        if self.type is float and number and isinstance(value, Real) and isfinite(value):
            return float(value)
        if self.type in (bool, str) and isinstance(value, self.type):
            return value
        if self.type is tuple and (text or isinstance(value, (list, tuple))):
            return self._read_numbers(value.split(",") if text else value)
        raise ValueError(f"not {KINDS[self.type]}: {value!r}")

    @staticmethod
    def _read_numbers(values: Iterable[Any]) -> tuple[float, ...]:
        if any(isinstance(value, bool) for value in values):
            raise ValueError("true and false are no numbers")
        numbers = tuple(float(value) for value in values)
        if not all(map(isfinite, numbers)):
            raise ValueError(f"not finite: {numbers}")
        return numbers


@dataclass(frozen=True)
class Method:
    """A registered method, the facts in its signature, and its further results beside a map."""

    name: str
    function: Callable[..., Any]
    gives: Gives
    evidence: tuple[str, ...]
    options: tuple[Option, ...]
    details: tuple[str, ...] = ()

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


# the inputs that a metric can ask for
METRIC_INPUTS: Mapping[str, str] = {
    "maps": "raw maps of one picture, at its size [b H W]",
    "unit_maps": "the same between 0 and 1 [b H W]",
    "image": "what the network is given of the picture, normalised [c H W]",
    "score": "what gives the explained number of altered images [n c H W] -> [n]",
    "explain": "what maps altered images as a row of the maps was made: [n c H W], row -> [n H W]",
    "boxes": "the object's boxes: left, top, right and bottom edge in pixels [n 4]",
    "mask": "which pixels are the object's, bool [H W]",
    "label": "the picture's true category []",
}
# inputs that the user has to give
ANNOTATIONS: Mapping[str, str] = {"boxes": "a box", "mask": "a mask", "label": "a label"}

Direction = Literal["higher", "lower"]
Family = Literal["faithfulness", "localisation", "sanity"]
# a number, or a function of the options that its parameters name
Count = int | Callable[..., int]


@dataclass(frozen=True)
class Metric:
    """A registered metric and what is known about it.

    `direction` says which values are better, `range` which are possible, `passes` how many forward
    passes a map takes, and `explanations` how many further maps have to be made for it.  `plan`
    makes the altered pictures of metrics that share batches.

    A metric of a whole data set keeps [b ...] of each map, and `conclude` computes its value from
    the mean over the pictures, [n ...] -> [n].  One `of_grids` is measured on grids of pictures.
    """

    name: str
    function: Callable[..., Any]
    family: Family
    direction: Direction
    range: tuple[float, float]
    passes: Count
    explanations: Count
    paper: str
    inputs: tuple[str, ...]
    options: tuple[Option, ...]
    plan: Callable[..., Any] | None = None
    conclude: Callable[..., Any] | None = None
    of_grids: bool = False

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    @property
    def sign(self) -> int:
        """1 if higher values are better, -1 if lower ones are."""
        return 1 if self.direction == "higher" else -1

    @property
    def needs(self) -> tuple[str, ...]:
        """What the user has to give for each picture, in words; () for nothing."""
        return tuple(ANNOTATIONS[name] for name in self.inputs if name in ANNOTATIONS)

    def count_passes(self, **options: Any) -> int:
        """Returns how many forward passes a map takes with these options."""
        return self._count(self.passes, options)

    def count_explanations(self, **options: Any) -> int:
        """Returns how many further maps a map takes with these options."""
        return self._count(self.explanations, options)

    def _count(self, count: Count, options: Mapping[str, Any]) -> int:
        if isinstance(count, int):
            return count
        values = {option.name: option.default for option in self.options} | dict(options)
        return count(*(values[name] for name in inspect.signature(count).parameters))


# names that the engine itself gives to evidence, beside other evidence
FROM_ENGINE = ("context", "layer", "slot")

ALL = "all"  # stands for every method that fits the model

METHODS: dict[str, Method] = {}
EVIDENCE_FUNCTIONS: dict[str, Evidence] = {}
METRICS: dict[str, Metric] = {}

Function = TypeVar("Function", bound=Callable[..., Any])


def method(
    name: str, *, gives: Gives, details: tuple[str, ...] = ()
) -> Callable[[Function], Function]:
    """Registers a method; raises TypeError for evidence or details that are not declared.

    A method with details returns its map as `records.Detailed`.
    """

    def register(function: Function) -> Function:
        positional, keyword_only = _read_parameters(function)
        _check_declared(function, positional)
        if unknown := [detail for detail in details if detail not in DETAILS]:
            raise TypeError(
                f"{function.__qualname__} gives {unknown}, which is no declared detail."
            )
        options = tuple(Option(p.name, type(p.default), p.default) for p in keyword_only.values())
        METHODS[name] = Method(name, function, gives, tuple(positional), options, details)
        return function

    return register


def evidence(function: Function) -> Function:
    """Registers evidence under the function's name; its parameters are evidence, or the context.

    Raises TypeError for an undeclared name, and for a parameter whose evidence exists more often.
    """
    name = function.__name__
    positional, _ = _read_parameters(function)
    others = [p for p in positional if p not in FROM_ENGINE]
    _check_declared(function, [name, *others])
    for other in others:
        if EVIDENCE[other].scope & ~EVIDENCE[name].scope:
            raise TypeError(f"Evidence {name!r} cannot ask for {other!r}: it exists more often.")
    EVIDENCE_FUNCTIONS[name] = Evidence(name, function, tuple(positional))
    return function


def metric(
    name: str,
    *,
    family: Family,
    direction: Direction,
    range: tuple[float, float],  # noqa: A002 - as it is called in the record
    paper: str,
    passes: Count = 0,
    explanations: Count = 0,
    plan: Callable[..., Any] | None = None,
    conclude: Callable[..., Any] | None = None,
    of_grids: bool = False,
) -> Callable[[Function], Function]:
    """Registers a metric with what is known about it.

    Raises TypeError for an input that is not declared, a count of an option that the function does
    not have, a range that is empty, or a name that is taken.
    """

    def register(function: Function) -> Function:
        positional, keyword_only = _read_parameters(function)
        wrong = [p for p in positional if p not in METRIC_INPUTS]
        for count in (passes, explanations):
            if not isinstance(count, int):
                wrong += [p for p in inspect.signature(count).parameters if p not in keyword_only]
        if wrong:
            raise TypeError(
                f"{function.__qualname__} asks for {', '.join(map(repr, wrong))}, which is neither "
                "a declared input of metrics nor one of its options."
            )
        if not range[0] < range[1]:
            raise TypeError(f"{function.__qualname__} has the empty range {range}.")
        if name in METRICS:
            raise TypeError(f"{function.__qualname__} and another metric are both named {name!r}.")
        options = tuple(Option(p.name, type(p.default), p.default) for p in keyword_only.values())
        METRICS[name] = Metric(
            name, function, family, direction, range, passes, explanations, paper,
            tuple(positional), options, plan, conclude, of_grids,
        )  # fmt: skip
        return function

    return register


def collect_evidence(methods: Iterable[Method]) -> frozenset[str]:
    """Returns all evidence that the methods need, directly or through other evidence."""
    names: set[str] = set()
    waiting = [name for m in methods for name in m.evidence]
    while waiting:
        name = waiting.pop()
        if name in EVIDENCE and name not in names:
            names.add(name)
            waiting += EVIDENCE_FUNCTIONS[name].asks_for
    return frozenset(names)


def depends_on_category(name: str) -> bool:
    """Tells whether a method's map depends on the category."""
    return any(EVIDENCE[e].scope & Scope.CATEGORY for e in METHODS[name].evidence)


def depends_on_layer(name: str) -> bool:
    """Tells whether a method's map depends on the layer."""
    return any(EVIDENCE[e].scope & Scope.LAYER for e in METHODS[name].evidence)


def normalise_name(name: str) -> str:
    """Reduces a name for comparing: `Grad-CAM_plusplus` -> `gradcam++`."""
    plain = re.sub(r"[-_ ]", "", name.lower())
    return re.sub(r"(plus|p|\+)(plus|p|\+)$", "++", plain)


def find_method_name(given: str) -> str:
    """Finds a method's registered name; raises UnknownName with the closest ones."""
    for name in METHOD_INFO:
        if normalise_name(name) == normalise_name(given):
            return name
    raise UnknownName("method", given, METHOD_INFO, "All: camviz methods")


def list_options(name: str) -> tuple[Option, ...]:
    """Returns a method's options from its signature or, without torch, from `method_info`."""
    if name in METHODS:
        return METHODS[name].options
    return tuple(Option(n, type(value), value) for n, value in METHOD_INFO[name].options.items())


def check_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Reads options by a method's signature; raises UnknownName or UsageError."""
    known = {option.name: option for option in list_options(name)}
    read = {}
    for key, value in given.items():
        if key not in known:
            raise _unknown_option_error([name], key)
        try:
            read[key] = known[key].read(value)
        except ValueError as error:
            kind = KINDS[known[key].type]
            raise UsageError(f"Option {key!r} of {name} takes {kind}, not {value!r}.") from error
    return read


def assign_options(
    methods: Sequence[str], given: Mapping[str, Any], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Gives each method the options that it has; `method.name` is for one method only.

    None stands for the default; the seed goes to all methods that draw random numbers.  Raises
    UnknownName for an option that none of the methods has, and UsageError for a wrong value or a
    method that was not asked for.
    """
    drawing = [m for m in methods if any(o.name == "seed" for o in list_options(m))]
    options_by_method: dict[str, dict[str, Any]] = {m: {"seed": seed} for m in drawing}
    flat = {key: value for key, value in _flatten(given) if value is not None}
    # an option for one method overrides one for all
    for key, value in sorted(flat.items(), key=lambda item: "." in item[0]):
        owner, _, name = key.rpartition(".")
        asked = [_find_owner(owner, key, methods)] if owner else methods
        having = [m for m in asked if any(o.name == name for o in list_options(m))]
        if not having:
            raise _unknown_option_error(asked, name)
        for m in having:
            options_by_method.setdefault(m, {}).update(check_options(m, {name: value}))
    return options_by_method


def list_changed_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a method that differ from its signature's defaults."""
    defaults = {option.name: option.default for option in list_options(name)}
    return {key: value for key, value in given.items() if value != defaults[key]}


def _flatten(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", below) for name, below in _flatten(value))
        else:
            yield key, value


def _find_owner(owner: str, key: str, methods: Sequence[str]) -> str:
    name = find_method_name(owner)
    if name not in methods:
        asked = ", ".join(methods)
        raise UsageError(f"Option {key!r} is for {name}, and {asked} is what is asked for.")
    return name


def _unknown_option_error(methods: Sequence[str], name: str) -> UnknownName:
    if not methods:
        raise UsageError(f"Method best has no options: leave {name!r} out.")
    options = {m: list_options(m) for m in methods}
    having = (f"{m} has {', '.join(map(str, o)) or 'no options'}" for m, o in options.items())
    elsewhere = [m for m in METHODS or METHOD_INFO if name in (o.name for o in list_options(m))]
    also = f" It is an option of {', '.join(elsewhere)}." if elsewhere else ""
    known = [option.name for m in methods for option in options[m]]
    return UnknownName(
        f"option of {', '.join(methods)}", name, known, f"{'; '.join(having)}.{also}"
    )


def _read_parameters(
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
