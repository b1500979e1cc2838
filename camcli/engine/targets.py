"""Which categories are explained, and the one number that is explained for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from camcli.errors import UsageError

# torch takes booleans for whole numbers
INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})

Targets = int | Sequence[int] | Sequence[Sequence[int]] | Tensor


class Choice(Protocol):
    """Chooses the categories that are explained for each picture of a batch."""

    def pick(self, logits: Tensor) -> Tensor:
        """Returns the chosen categories, int64.  [b n] -> [b k]"""

    def part(self, rows: slice) -> Choice:
        """Returns the choice for some of the batch's pictures."""


@dataclass(frozen=True)
class Best:
    """Each picture's k best categories, the predicted one first."""

    k: int = 1

    def pick(self, logits: Tensor) -> Tensor:
        """Returns the k best; raises UsageError where the model has fewer.  [b n] -> [b k]"""
        if self.k > logits.shape[1]:
            raise UsageError(f"top-k {self.k} is more than the model's {logits.shape[1]} classes.")
        return logits.topk(self.k).indices

    def part(self, rows: slice) -> Choice:  # noqa: ARG002
        """Returns itself: every picture has its own best."""
        return self


@dataclass(frozen=True)
class Fixed:
    """Given categories, int64 [b k]."""

    categories: Tensor

    def pick(self, logits: Tensor) -> Tensor:
        """Returns them; raises UsageError for one the model does not have.  [b n] -> [b k]"""
        n = logits.shape[1]
        outside = self.categories[(self.categories < 0) | (self.categories >= n)]
        if len(outside):
            raise UsageError(f"Category {int(outside[0])} is not in 0..{n - 1}.")
        return self.categories.to(logits.device)

    def part(self, rows: slice) -> Choice:
        """Returns the choice for some of the batch's pictures."""
        return Fixed(self.categories[rows])


def fixed(targets: Targets, b: int) -> Fixed:
    """Reads targets: one for all pictures, one a picture, or k a picture; raises UsageError."""
    problem = f"Targets are indices, one a picture or k for each, not {targets!r}."
    try:
        wanted = torch.as_tensor(targets)
    except (TypeError, ValueError) as error:  # names of classes, or another k for each picture
        raise UsageError(problem) from error
    if wanted.ndim > 2 or wanted.dtype not in INTEGERS or wanted.numel() == 0:
        raise UsageError(problem)
    if wanted.ndim == 0:
        wanted = wanted.expand(b)
    if len(wanted) != b:
        raise UsageError(f"{len(wanted)} targets were given for {b} pictures.")
    return Fixed(wanted.reshape(b, -1).long())


def logit(logits: Tensor, categories: Tensor) -> Tensor:
    """Explains the logit itself.  [b n], [b] -> scores [b]"""
    return logits.gather(1, categories[:, None]).squeeze(1)
