"""Targets: which categories are explained, and the one number that is explained for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, Protocol

import torch
from torch import Tensor

from camcli.engine.device.device_transfer import send_to_device
from camcli.errors import UnknownName, UsageError
from camcli.models.outputs.interpretation import Link, OutputReading, compute_log_probabilities
from camcli.records import TargetName

# without bool, which torch would take for indices
INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})

Targets = int | Sequence[int] | Sequence[Sequence[int]] | Tensor


class CategoryChoice(Protocol):
    """Chooses the categories that are explained for each picture of a batch."""

    def pick(self, logits: Tensor) -> Tensor:
        """Returns the chosen categories, int64.  [b n] -> [b k]"""

    def part(self, rows: slice) -> CategoryChoice:
        """Returns the choice for some of the batch's pictures."""


@dataclass(frozen=True)
class TopKCategories:
    """Each picture's k best categories, the predicted one first."""

    k: int = 1

    def pick(self, logits: Tensor) -> Tensor:
        """Returns the k best; raises UsageError if the model has fewer.  [b n] -> [b k]"""
        expanded = expand_class_logits(logits)
        if self.k > expanded.shape[1]:
            raise UsageError(
                f"top-k {self.k} is more than the model's {expanded.shape[1]} classes."
            )
        return expanded.topk(self.k).indices

    def part(self, rows: slice) -> CategoryChoice:  # noqa: ARG002
        """Returns itself: every picture has its own best."""
        return self


@dataclass(frozen=True)
class LikelyCategories:
    """Each picture's classes with at least `probability`, but 1 at least and `most` at most."""

    probability: float
    most: int
    link: Link = "softmax"

    def pick(self, logits: Tensor) -> Tensor:
        """Returns each picture's k best, the most such classes of any picture.  [b n] -> [b k]"""
        probabilities = compute_log_probabilities(logits, self.link).exp()
        k = int((probabilities >= self.probability).sum(1).clamp(1, self.most).max())
        return probabilities.topk(k).indices

    def part(self, rows: slice) -> CategoryChoice:  # noqa: ARG002
        """Returns itself: every picture has its own classes."""
        return self


@dataclass(frozen=True)
class FixedCategories:
    """Given categories, int64 [b k]."""

    categories: Tensor

    def pick(self, logits: Tensor) -> Tensor:
        """Returns them; raises UsageError for one that the model does not have.  [b n] -> [b k]"""
        return _check_categories(self.categories, logits)

    def part(self, rows: slice) -> CategoryChoice:
        """Returns the choice for some of the batch's pictures."""
        return FixedCategories(self.categories[rows])


@dataclass(frozen=True)
class PerPictureCategories:
    """A category for each picture; None stands for the predicted one."""

    categories: tuple[int | None, ...]

    def pick(self, logits: Tensor) -> Tensor:
        """Returns them; raises UsageError for one the model does not have.  [b n] -> [b 1]"""
        best = expand_class_logits(logits).argmax(1)
        pairs = zip(self.categories, best.tolist(), strict=True)
        chosen = [b if category is None else category for category, b in pairs]
        return _check_categories(torch.tensor(chosen)[:, None], logits)

    def part(self, rows: slice) -> CategoryChoice:
        """Returns the choice for some of the batch's pictures."""
        return PerPictureCategories(self.categories[rows])


@dataclass(frozen=True)
class LikeliestCategories:
    """Each picture's likeliest of some categories, or the predicted one if none are given.

    `among` has a tuple of categories for each picture.
    """

    among: tuple[tuple[int, ...], ...]

    def pick(self, logits: Tensor) -> Tensor:
        """Returns them; raises UsageError for one the model does not have.  [b n] -> [b 1]"""
        expanded = expand_class_logits(logits)
        given = [c for own in self.among for c in own]
        if given:
            _check_categories(torch.tensor(given), logits)
        chosen = [
            own[int(row[list(own)].argmax())] if own else int(row.argmax())
            for row, own in zip(expanded, self.among, strict=True)
        ]
        return torch.tensor(chosen, device=logits.device)[:, None]

    def part(self, rows: slice) -> CategoryChoice:
        """Returns the choice for some of the batch's pictures."""
        return LikeliestCategories(self.among[rows])


def parse_targets(targets: Targets, b: int) -> FixedCategories:
    """Reads targets: one for all of b pictures, one for each, or k for each; raises UsageError."""
    problem = f"Targets are indices of classes, one or k for each picture, not {targets!r}."
    if isinstance(targets, list) and any(callable(one) for one in targets):
        problem += " A function of logits [b n] and categories [b] goes to target."
    try:
        indices = torch.as_tensor(targets)
    # names of classes, lists of different lengths, or functions
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(problem) from error
    if indices.ndim > 2 or indices.dtype not in INTEGERS or indices.numel() == 0:
        raise UsageError(problem)
    if indices.ndim == 0:
        indices = indices.expand(b)
    if len(indices) != b:
        raise UsageError(f"{len(indices)} targets were given for {b} pictures.")
    return FixedCategories(indices.reshape(b, -1).long())


def _check_categories(categories: Tensor, logits: Tensor) -> Tensor:
    n = expand_class_logits(logits).shape[1]
    outside = categories[(categories < 0) | (categories >= n)]
    if len(outside):
        raise UsageError(f"Category {int(outside[0])} is not in 0..{n - 1}.")
    if categories.is_inference():
        # a tensor that was made in inference mode cannot be part of a graph
        categories = categories.clone()
    return send_to_device(categories, logits.device)


def expand_class_logits(logits: Tensor) -> Tensor:
    """Gives each class a logit: a single one becomes no (0) and yes (1).  [b n] or [b 2]

    grad-cam's BinaryClassifierOutputTarget does the same.
    """
    return logits if logits.shape[1] > 1 else torch.cat([-logits, logits], 1)


def _pick(values: Tensor, categories: Tensor) -> Tensor:
    return values.gather(1, categories[:, None]).squeeze(1)


def logit(logits: Tensor, categories: Tensor) -> Tensor:
    """The class's logit, before softmax or sigmoid.  [b n], [b] -> scores [b]"""
    return _pick(expand_class_logits(logits), categories)


def probability(logits: Tensor, categories: Tensor, link: Link = "softmax") -> Tensor:
    """The class's probability, by softmax or sigmoid.  [b n], [b] -> scores [b]"""
    return log_probability(logits, categories, link).exp()


def log_probability(logits: Tensor, categories: Tensor, link: Link = "softmax") -> Tensor:
    """The logarithm of the class's probability.  [b n], [b] -> scores [b]"""
    return _pick(compute_log_probabilities(logits, link), categories)


def rest(logits: Tensor, categories: Tensor, link: Link = "softmax") -> Tensor:
    """ReST, arXiv:2501.06261: logit plus log-probability.  [b n], [b] -> scores [b]"""
    return logit(logits, categories) + log_probability(logits, categories, link)


def counterfactual(logits: Tensor, categories: Tensor) -> Tensor:
    """The negated logit: what speaks against the class, arXiv:1610.02391.  [b n], [b] -> [b]"""
    return -logit(logits, categories)


def value(outputs: Tensor, chosen: Tensor) -> Tensor:
    """A real number among the model's outputs, as it is.  [b n], [b] -> scores [b]

    Raises UsageError for an index that the model does not have.
    """
    n = outputs.shape[1]
    if (chosen >= n).any():
        raise UsageError(f"Output {int(chosen.max())} is not in 0..{n - 1}.")
    return _pick(outputs, chosen)


def negated_value(outputs: Tensor, chosen: Tensor) -> Tensor:
    """The negated value, whose map shows what lowers it.  [b n], [b] -> scores [b]"""
    return -value(outputs, chosen)


def contrast(
    logits: Tensor, categories: Tensor, references: Tensor, *, strength: float = 0.6
) -> Tensor:
    """Finer-CAM, arXiv:2501.11309: the logit minus `strength` times the references' mean logit.

    [b n], [b], references [b r] -> scores [b].  The plain mean and 0.6 are `aggregate` in the
    authors' code; grad-cam weights the references by softmax and takes 1.  A class is never its own
    reference.
    """
    counted = references != categories[:, None]
    total = (logits.gather(1, references) * counted).sum(1)
    return logit(logits, categories) - strength * total / counted.sum(1).clamp(min=1)


Score = Callable[[Tensor, Tensor], Tensor]

SCORES: Mapping[TargetName, Score] = {
    "logit": logit,
    "probability": probability,
    "log-probability": log_probability,
    "rest": rest,
    "counterfactual": counterfactual,
}
# targets that depend on the link, softmax or sigmoid, and take its name
OF_PROBABILITY: Mapping[str, Callable[..., Tensor]] = {
    "probability": probability,
    "log-probability": log_probability,
    "rest": rest,
}
CONTRAST: TargetName = "contrast"
# targets that ask about a class, which methods without a class cannot answer
ABOUT_A_CLASS: frozenset[TargetName] = frozenset({"counterfactual", CONTRAST})
# how many classes Finer-CAM's authors compare with
SIMILAR = 3


class Target(Protocol):
    """The explained number, as a function of the logits."""

    @property
    def name(self) -> str:
        """The target's name."""

    @property
    def mark(self) -> str:
        """The target's mark in file names; empty for the logit."""

    def references(self, logits: Tensor, categories: Tensor) -> Tensor | None:
        """Returns the classes that the explained ones are compared with.  [b n], [b] -> [b r]"""

    def score(self, logits: Tensor, categories: Tensor, references: Tensor | None) -> Tensor:
        """Returns each row's explained number.  [b n], [b], [b r] -> [b]"""


@dataclass(frozen=True)
class PlainTarget:
    """A target of the explained class alone, or any function of logits and categories."""

    name: str = "logit"
    function: Score = logit

    @property
    def mark(self) -> str:
        """Its name, unless it is the logit."""
        return "" if self.function in (logit, value) else self.name

    def references(self, logits: Tensor, categories: Tensor) -> None:
        """Returns None: no class is compared with."""

    def score(
        self,
        logits: Tensor,
        categories: Tensor,
        references: Tensor | None,  # noqa: ARG002
    ) -> Tensor:
        """Returns the function's scores; raises UsageError unless they are one a picture."""
        scores = self.function(logits, categories)
        if not isinstance(scores, Tensor) or scores.shape != categories.shape:
            given = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise UsageError(
                f"Target {self.name!r} returned {given} for {len(categories)} pictures: a target "
                "takes logits [b n] and categories [b], and returns scores [b]."
            )
        return scores


@dataclass(frozen=True)
class ContrastTarget:
    """Why this class and not those: the given classes, or the most similar ones by their logits."""

    against: tuple[int, ...] = ()
    strength: float = 0.6

    def __post_init__(self) -> None:
        """Refuses a negative strength, which would reverse the question."""
        if not (isfinite(self.strength) and self.strength >= 0):
            raise UsageError(
                f"A contrast's strength is a finite number of 0 or more, not {self.strength!r}."
            )

    @property
    def name(self) -> str:
        """Its name."""
        return CONTRAST

    @property
    def mark(self) -> str:
        """Its name, and the classes that were given."""
        return "-".join([CONTRAST, *map(str, self.against)])

    def references(self, logits: Tensor, categories: Tensor) -> Tensor:
        """Returns the given classes, or those with the closest logits.  [b n], [b] -> [b r]

        Raises UsageError for a model with a single logit.
        """
        b, n = logits.shape
        if n == 1:
            raise UsageError(
                "A contrast compares the logits of classes, and this model has a single logit: "
                "ask for its opposite with --target counterfactual."
            )
        if self.against:
            return _check_categories(torch.tensor(self.against), logits).expand(b, -1)
        apart = (logits - logits.gather(1, categories[:, None])).abs()
        apart = apart.scatter(1, categories[:, None], torch.inf)
        return apart.topk(min(SIMILAR, n - 1), largest=False).indices

    def score(self, logits: Tensor, categories: Tensor, references: Tensor | None) -> Tensor:
        """Returns Finer-CAM's scores.  [b n], [b], [b r] -> [b]"""
        if references is None:
            raise TypeError("a contrast needs its references")
        return contrast(logits, categories, references, strength=self.strength)


def make_target(
    given: str | Callable[..., Any] | None,
    against: Sequence[int] = (),
    strength: float = 0.6,
    reading: OutputReading | None = None,
) -> Target:
    """Finds a target by name, or makes one of a function; `against` means a contrast.

    Raises UnknownName for another name, and UsageError for a class in its place, for a contrast
    together with another target, or for values.
    """
    reading = reading or OutputReading()
    if reading.is_value and not callable(given):
        return _make_value_target(given, against)
    if against and given not in (None, CONTRAST):
        raise UsageError(
            "A contrast is a target itself: give --contrast or another --target, not both."
        )
    if against or given == CONTRAST:
        return ContrastTarget(tuple(dict.fromkeys(against)), strength)
    if given is None:
        return PlainTarget()
    if callable(given):
        return PlainTarget(getattr(given, "__name__", type(given).__name__), given)
    for name, function in SCORES.items():
        if name == given:
            if reading.link != "softmax" and name in OF_PROBABILITY:
                return PlainTarget(name, partial(OF_PROBABILITY[name], link=reading.link))
            return PlainTarget(name, function)
    names = f"{', '.join(SCORES)}, contrast"
    if not isinstance(given, str):
        raise UsageError(
            f"target={given!r}: target says what is explained of a class ({names}, or a function); "
            "the class itself goes to target_category."
        )
    raise UnknownName("target", given, [*SCORES, CONTRAST], f"All: {names}.")


def _make_value_target(given: str | None, against: Sequence[int]) -> Target:
    if against or given not in (None, "logit", "counterfactual"):
        raise UsageError(
            f"The model's output is a value and not a class, so {given or CONTRAST} does not "
            "apply: leave it out, or say with --outputs what the outputs are."
        )
    return (
        PlainTarget("counterfactual", negated_value)
        if given == "counterfactual"
        else PlainTarget("value", value)
    )
