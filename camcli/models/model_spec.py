"""What a model is asked for, and what a library built from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from camcli.errors import ModelError, first_line
from camcli.models.outputs.interpretation import OutputReading
from camcli.models.outputs.logits import OutputKey
from camcli.records import Fit, Outputs, Preprocessing

Weights = dict[str, Tensor]

# longer edges than any model was built for would only fill the memory
LONGEST_EDGE = 2**15


@dataclass(frozen=True)
class ModelSpec:
    """A model by its name within a library, and what the user says about it.

    `img_size` is (height, width); `preprocessing` is what overrules the model's own; `output_key`
    names the logits in what the user's own code returns, and `outputs` says what they mean; `fit`
    is how pictures are fitted in, where that was said.
    """

    name: str
    pretrained: bool = True
    num_classes: int | None = None
    img_size: tuple[int, int] | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    output_key: OutputKey | None = None
    outputs: Outputs | None = None
    fit: Fit | None = None

    @property
    def in_chans(self) -> int | None:
        """The number of input channels that is asked for; raises ModelError for none."""
        if "in_chans" not in self.model_kwargs:
            return None
        channels = self.model_kwargs["in_chans"]
        if not isinstance(channels, int) or channels < 1:
            raise ModelError(f"in_chans is a whole number from 1, not {channels!r}.")
        return channels


@dataclass(frozen=True)
class BuiltModel:
    """A model on the CPU and what its library knows about it.

    `labels` are the library's own names, whether they fit the number of classes or not;
    `classifiers` names the layers whose outputs are the logits, `stems` those that see the input's
    channels; `reading` is how the output is read, where that was measured; `convert` rewrites
    weights in the layouts that the library itself accepts; `rebuild` builds the model anew where
    its random weights were not drawn.
    """

    module: nn.Module
    preprocessing: Preprocessing
    num_classes: int
    weights: str
    classifiers: tuple[str, ...]
    stems: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    in_chans: int = 3
    warnings: tuple[str, ...] = ()
    reading: OutputReading | None = None
    convert: Callable[[Weights, nn.Module], Weights] | None = None
    rebuild: Callable[[], BuiltModel] | None = None


def make_spec(
    name: str,
    pretrained: bool,
    num_classes: int | None,
    img_size: int | tuple[int, int] | None,
    model_kwargs: Mapping[str, Any] | None,
) -> ModelSpec:
    """Makes a spec of what a user gave, some of it perhaps among the constructor's arguments.

    Raises ModelError.
    """
    kwargs = dict(model_kwargs or {})
    inside = {key: kwargs.pop(key, None) for key in ("num_classes", "img_size")}
    classes = inside["num_classes"] if num_classes is None else num_classes
    size = inside["img_size"] if img_size is None else img_size
    if classes is not None and (not isinstance(classes, int) or classes < 0):
        raise ModelError(f"A number of classes is a whole number from 0, not {classes!r}.")
    return ModelSpec(name, pretrained, classes, parse_size(size), kwargs)


def parse_size(given: Any) -> tuple[int, int] | None:
    """Reads one edge, or (height, width), in pixels; raises ModelError."""
    if given is None:
        return None
    pair = (given, given) if isinstance(given, int) else tuple(given)
    if len(pair) != 2 or not all(isinstance(edge, int) and edge > 0 for edge in pair):
        raise ModelError(f"An input size is one or two (height, width) pixels, not {given!r}.")
    if max(pair) > LONGEST_EDGE:
        raise ModelError(
            f"An input has edges of up to {LONGEST_EDGE:,} pixels, not {pair[0]:,}x{pair[1]:,}: "
            "give --img-size."
        )
    return pair


def build_error(
    library: str, request: ModelSpec, error: BaseException, file: Path | None = None
) -> ModelError:
    """Words the error of a model's constructor, which may have read pretrained weights."""
    weights = f"\nIts weights came from {file}: delete that file if it is damaged." if file else ""
    return ModelError(f"{library} cannot build {describe(request)}: {first_line(error)}.{weights}")


def describe(request: ModelSpec) -> str:
    """Names a model and what was given for its constructor: `'resnet50' with num_classes=5`."""
    asked = {"num_classes": request.num_classes, "img_size": request.img_size}
    given = {k: v for k, v in asked.items() if v is not None} | dict(request.model_kwargs)
    options = f" with {', '.join(f'{k}={v!r}' for k, v in given.items())}" if given else ""
    return f"{request.name!r}{options}"


def warn_of_new_head(num_classes: int) -> str:
    """Says that a classifier was made anew beside pretrained weights."""
    return (
        f"The classifier for {num_classes} classes is new and has random weights: "
        "maps of its classes mean nothing."
    )


def warn_of_channels(in_chans: int) -> tuple[str, ...]:
    """Says what a model of several times three channels sees of a picture."""
    times, rest = divmod(in_chans, 3)
    if rest or times < 2:
        return ()
    seen = f"it sees a picture's red, green and blue {times} times"
    return (f"The model takes {in_chans} channels: {seen}.",)
