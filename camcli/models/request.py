"""What a model is asked for, and what a library built from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from camcli.errors import ModelError
from camcli.records import Preprocessing

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Request:
    """A model by its name within a library; `img_size` is (height, width)."""

    name: str
    pretrained: bool = True
    num_classes: int | None = None
    img_size: tuple[int, int] | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """A model on the CPU and what its library knows about it.

    `labels` are the library's own names, whether they fit the number of classes or not;
    `classifiers` names the layers whose outputs are the logits; `convert` rewrites weights in the
    layouts that the library itself accepts.
    """

    module: nn.Module
    preprocessing: Preprocessing
    num_classes: int
    weights: str
    classifiers: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    in_chans: int = 3
    warnings: tuple[str, ...] = ()
    convert: Callable[[Weights, nn.Module], Weights] | None = None


def reason(error: BaseException | str) -> str:
    """Returns the first line of an error's text that tells something, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # "Error(s) in loading state_dict for ResNet:" says less than the line below it
    telling = [line for line in lines if not line.endswith(":")]
    return (telling or lines)[0][:200].rstrip(".:!") if lines else type(error).__name__


def cannot_build(
    library: str, request: Request, error: BaseException, file: Path | None = None
) -> ModelError:
    """Words the error of a model's constructor, which may have read pretrained weights."""
    asked = {"num_classes": request.num_classes, "img_size": request.img_size}
    given = {k: v for k, v in asked.items() if v is not None} | dict(request.model_kwargs)
    options = f" with {', '.join(f'{k}={v!r}' for k, v in given.items())}" if given else ""
    weights = f"\nIts weights came from {file}: delete that file if it is damaged." if file else ""
    return ModelError(
        f"{library} cannot build {request.name!r}{options}: {reason(error)}.{weights}"
    )


def new_head_warning(num_classes: int) -> str:
    """Says that a classifier was made anew beside pretrained weights."""
    return (
        f"The classifier for {num_classes} classes is new and has random weights: "
        "maps of its classes mean nothing."
    )
