"""Selects the logits in an output that holds more, and describes such an output in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from camcli.errors import ModelError

MOST = 8  # parts that are listed
MOST_DIGITS = 20  # Python reads no number of thousands of them
LOGITS = "logits"  # what transformers call them, and most others
OutputKey = str | int


def select_output(output: Any, key: OutputKey | None) -> Any:
    """Returns the part of an output under a key, at any depth; raises ModelError for none.

    A key is a dictionary's, a position, or an attribute; `heads.race` goes down, and a key that
    holds a dot itself comes first.  Without one it is the output itself, its `logits`, or the only
    tensor that is in it.
    """
    if key is None:
        return _select_only_part(output)
    if isinstance(output, Tensor):
        raise ModelError(
            f"The model returned {describe_output(output)}, of which output key {key!r} names no"
            " part: leave --output-key out."
        )
    parts = _find_parts(output, key)
    if not parts:
        raise ModelError(
            f"The model returned {describe_output(output)}, and nothing under the output key"
            f" {key!r}."
        )
    return parts[0]


def _select_only_part(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output
    if parts := _list_parts(output, LOGITS):
        return parts[0]
    tensors = [part for part in _name_parts(output).values() if isinstance(part, Tensor)]
    return tensors[0] if len(tensors) == 1 == len(_name_parts(output)) else output


def _find_parts(output: Any, key: OutputKey) -> list[Any]:
    """Lists what stands under a key, which may lead down: one part, or none."""
    if parts := _list_parts(output, key):
        return parts
    if isinstance(key, str):
        steps = key.split(".")
        for length in range(len(steps) - 1, 0, -1):
            for part in _list_parts(output, ".".join(steps[:length])):
                if parts := _find_parts(part, ".".join(steps[length:])):
                    return parts
    return []


def _list_parts(output: Any, key: OutputKey) -> list[Any]:
    # digits count as a position where they are no name
    number = _parse_number(key)
    if isinstance(output, Tensor):
        return []
    if isinstance(output, Mapping):
        return [output[k] for k in (key, number) if k in output][:1]
    if isinstance(output, tuple | list) and number is not None:
        return [output[number]] if -len(output) <= number < len(output) else []
    if isinstance(output, list) or not isinstance(key, str):
        return []
    is_named = key in getattr(output, "_fields", ()) if isinstance(output, tuple) else True
    return [getattr(output, key)] if is_named and hasattr(output, key) else []


def describe_output(output: Any) -> str:
    """Says in words what a model returned: `a dict with 'logits': [2, 5], 'loss': float`."""
    if isinstance(output, Tensor):
        return f"a tensor {_describe_value(output)}"
    kind = type(output).__name__
    kind = f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"
    if not isinstance(output, Mapping | tuple | list):
        return kind
    parts = [f"{name}: {_describe_value(value)}" for name, value in _name_parts(output).items()]
    more = f" and {len(parts) - MOST} more" if len(parts) > MOST else ""
    return f"{kind} with {', '.join(parts[:MOST]) or 'nothing in it'}{more}"


def _name_parts(output: Any) -> dict[str, Any]:
    if isinstance(output, Mapping):
        return {repr(key): value for key, value in output.items()}
    if isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))
        return {str(name): value for name, value in zip(names, output, strict=True)}
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return {}


def _parse_number(key: OutputKey) -> int | None:
    if isinstance(key, int):
        return key
    return int(key) if key.removeprefix("-").isdecimal() and len(key) < MOST_DIGITS else None


def _describe_value(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
