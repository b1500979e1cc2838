"""Checks values that were read from a file against the types that a dataclass declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def check_fields(instance: Any) -> None:
    """Raises TypeError that names the first field whose value is not of its declared type.

    Where a number is declared, None stands for one that JSON cannot hold.

    >>> from camcli.records import Box
    >>> check_fields(Box(0, 0, "1", 1))
    Traceback (most recent call last):
    TypeError: right is '1'
    """
    kind: Any = type(instance)
    hints = _find_hints(kind)
    for one in fields(instance):
        value = getattr(instance, one.name)
        if not _is_of(value, hints[one.name]):
            raise TypeError(f"{one.name} is {value!r:.60}")


@cache
def _find_hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _is_of(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_is_of(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and _are_of(value, arguments)
    if origin is not None and issubclass(origin, Mapping):
        key, item = arguments
        return isinstance(value, Mapping) and all(
            _is_of(name, key) and _is_of(inner, item) for name, inner in value.items()
        )
    if hint is float:
        return value is None or _is_number(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        return False
    if is_dataclass(hint):
        check_fields(value)
    return True


def _are_of(values: tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(_is_of(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(map(_is_of, values, hints))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True
