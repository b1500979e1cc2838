"""What a visitor asks, read from the address that the page asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qs

from camcli.errors import MethodError, UsageError
from camcli.method_info import METHOD_INFO
from camcli.method_terms import BEST
from camcli.serve.command_line import name_file, spell_command
from camcli.serve.offered_models import OfferedModel, find_offered
from camcli.serve.uploads import UNNAMED, clean_name

# far more than the page sends
MOST_FIELDS, LONGEST_VALUE = 64, 1000


@dataclass(frozen=True)
class Question:
    """Methods of a model for a picture of some name, at a layer and for a class, None for its own.

    `alpha` is the share of heat that is laid on, None for the server's own.
    """

    model: OfferedModel
    methods: tuple[str, ...]
    layer: str | None
    category: int | None
    alpha: float | None
    name: str

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of the command that draws the same."""
        words = ["camviz", name_file(self.name), *self.model.words]
        words += ["--method", ",".join(self.methods)]
        if self.category is not None and any(map(_asks_class, self.methods)):
            words += ["--target-category", self.model.name_category(self.category)]
        options = self.model.options
        if layers := [self.layer] if self.layer else options.target_layers:
            words += ["--target-layers", ",".join(layers)]
        own = options.alpha if "alpha" in options.model_fields_set else None
        if (alpha := own if self.alpha is None else self.alpha) is not None:
            words += ["--alpha", str(alpha) if isinstance(alpha, str) else f"{alpha:g}"]
        return tuple(words)

    @property
    def command(self) -> str:
        """The command that draws the same, as a shell takes it."""
        return spell_command(self.words)


def read_question(query: str, models: Sequence[OfferedModel]) -> Question:
    """Reads a question; raises UsageError for what is not offered."""
    fields = _read_fields(query)
    model = find_offered(models, _read_one(fields, "model"))
    layer, category = _read_one(fields, "layer"), _read_one(fields, "category")
    methods = [model.find_method(name) for name in fields.get("method", ())]
    for method in methods:
        if why := model.left_out.get(method):
            raise MethodError(f"{method} does not fit {model.name}: {why}")
    return Question(
        model,
        tuple(dict.fromkeys(methods)) or model.options.method,
        model.find_layer(layer) if layer else None,
        model.find_category(category) if category else None,
        _read_alpha(_read_one(fields, "alpha")),
        clean_name(_read_one(fields, "name")) or UNNAMED,
    )


def _asks_class(method: str) -> bool:
    return method == BEST or METHOD_INFO[method].asks_class


def _read_fields(query: str) -> Mapping[str, Sequence[str]]:
    try:
        fields = parse_qs(query, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError as error:  # an UnicodeDecodeError is one, too
        raise UsageError("The address has too many parts, or is not in UTF-8.") from error
    if any(len(value) > LONGEST_VALUE for values in fields.values() for value in values):
        raise UsageError("The address is too long.")
    return fields


def _read_one(fields: Mapping[str, Sequence[str]], name: str) -> str:
    return fields.get(name, [""])[-1].strip()


def _read_alpha(text: str) -> float | None:
    if not text:
        return None
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1
    if not 0 <= alpha <= 1:
        raise UsageError("The opacity is a number from 0 to 1.")
    return alpha
