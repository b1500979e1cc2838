"""Models that take more than a picture: the picture is explained, and the rest is passed on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from camcli.errors import ModelError, UsageError
from camcli.models.state import in_this_thread, unwrap

InputKey = str | int


@dataclass(frozen=True)
class SeveralInputs:
    """What a model is given, as positions or names: the pictures' [b c H W], and all others."""

    values: Mapping[InputKey, Any]
    image: InputKey

    @property
    def pictures(self) -> Tensor:
        """The pictures' batch."""
        pictures_batch: Tensor = self.values[self.image]
        return pictures_batch

    @property
    def shapes(self) -> tuple[tuple[InputKey, tuple[int, ...]], ...]:
        """The shapes of all that are tensors."""
        tensors = ((k, v) for k, v in self.values.items() if isinstance(v, Tensor))
        return tuple((key, tuple(value.shape)) for key, value in tensors)

    def of_row(self, row: int, pictures: Tensor) -> dict[InputKey, Any]:
        """Returns all inputs of one picture, as often as there are altered ones.  [n c H W]"""
        b = len(self.pictures)

        def own(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            moved = value.to(pictures.device)
            if moved.is_floating_point():
                moved = moved.to(pictures.dtype)
            if moved.ndim == 0 or len(moved) != b:
                return moved
            return moved[row : row + 1].expand(len(pictures), *moved.shape[1:])

        return {k: pictures if k == self.image else own(v) for k, v in self.values.items()}


def split_several_inputs(
    inputs: Sequence[Any] | Mapping[str, Any], image_input: InputKey | None = None
) -> SeveralInputs:
    """Finds the pictures among several inputs: the first [b c H W], or the one that is named.

    Raises UsageError where there is none.
    """
    named = isinstance(inputs, Mapping)
    pairs = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    values: dict[InputKey, Any] = {key: value for key, value in pairs}  # noqa: C416
    if image_input is None:
        shaped = [key for key, value in values.items() if _is_image(value)]
        if not shaped:
            given = ", ".join(f"{key}: {_describe_shape(value)}" for key, value in values.items())
            raise UsageError(f"None of the inputs is a float tensor [b 3 H W]: {given or 'none'}.")
        return SeveralInputs(values, shaped[0])
    key = image_input
    if not named and isinstance(key, int) and key < 0:
        key += len(values)
    if key not in values or not _is_image(values[key]):
        given = _describe_shape(values[key]) if key in values else "not there"
        raise UsageError(
            f"image_input {image_input!r} is to be a float tensor [b 3 H W], and is {given}; the "
            f"inputs are {', '.join(map(repr, values))}."
        )
    return SeveralInputs(values, key)


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()


def _describe_shape(value: Any) -> str:
    return (
        f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )


def check_takes_a_picture_alone(module: nn.Module, name: str) -> None:
    """Raises ModelError for a model that needs more than a picture, and says what explains it."""
    inner = unwrap(module)
    if inner._forward_pre_hooks:  # which may give it the rest
        return
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(inner.forward).parameters.values()
    except (TypeError, ValueError):  # of what is compiled there may be none
        return
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in kinds]
    if len(needed) > 1:
        given = ", ".join(needed)
        raise ModelError(
            f"{name!r} needs more than a picture: forward({given}). In Python"
            f" camcli.heatmaps(model, ({given})) passes several inputs on; here, wrap it in a"
            " module that has the others (-m FILE.py:FUNCTION)."
        )


@contextmanager
def add_other_inputs(
    module: nn.Module, given: SeveralInputs | None, row: int = 0
) -> Iterator[None]:
    """Lets a model that is called with pictures have a row's other inputs, too, meanwhile."""
    if given is None:
        yield
        return
    inner = unwrap(module)
    together = _takes_one_argument(inner, given)

    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = given.of_row(row, args[0])
        if isinstance(given.image, int):
            everything = tuple(values.values())
            return ((everything,) if together else everything), kwargs
        named = {str(key): value for key, value in values.items()}
        return ((named,), kwargs) if together else ((), {**kwargs, **named})

    with inner.register_forward_pre_hook(in_this_thread(add), with_kwargs=True):
        yield


def _takes_one_argument(module: nn.Module, given: SeveralInputs) -> bool:
    """Tells whether a model takes all inputs as one tuple or dictionary."""
    signature = inspect.signature(module.forward)
    empty = inspect.Parameter.empty
    names = {str(key): 0 for key in given.values}
    try:
        if isinstance(given.image, int):
            signature.bind(*given.values)
        else:
            signature.bind(**names)
    except TypeError:
        needed = [p for p in signature.parameters.values() if p.default is empty]
        return len(needed) == 1 and needed[0].kind is not needed[0].VAR_KEYWORD
    return False
