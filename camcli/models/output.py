"""What a model returns where that is more than logits: a part of it, or all of it in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from camcli.errors import ModelError
from camcli.models.state import unwrapped

MOST = 8  # parts that are listed
OutputKey = str | int


@contextmanager
def answering(module: nn.Module, key: OutputKey | None) -> Iterator[None]:
    """Lets a model return the part of its output under a key, meanwhile; None leaves it whole."""
    if key is None:
        yield
        return
    inner = unwrapped(module)
    with inner.register_forward_hook(lambda _, __, output: part_of(output, key)):
        yield


def part_of(output: Any, key: OutputKey) -> Any:
    """Returns a dictionary's value, a tuple's item, or an attribute; raises ModelError for none.

    Digits count as a position where they are no name.
    """
    if isinstance(output, Tensor):
        raise ModelError(
            f"The model returned {described(output)}, of which output key {key!r} names no part: "
            "leave --output-key out."
        )
    number = _number(key)
    if isinstance(output, Mapping):
        found = [k for k in (key, number) if k in output]
        if found:
            return output[found[0]]
    elif isinstance(output, tuple | list) and number is not None:
        if -len(output) <= number < len(output):
            return output[number]
    elif isinstance(key, str) and hasattr(output, key):
        return getattr(output, key)
    raise ModelError(
        f"The model returned {described(output)}, and nothing under the output key {key!r}."
    )


def described(output: Any) -> str:
    """Says in words what a model returned: `a dict with 'logits': [2, 5], 'loss': float`."""
    if isinstance(output, Tensor):
        return f"a tensor {_short(output)}"
    kind = type(output).__name__
    kind = f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"
    if isinstance(output, Mapping):
        parts = [f"{key!r}: {_short(value)}" for key, value in output.items()]
    elif isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))
        parts = [f"{name}: {_short(value)}" for name, value in zip(names, output, strict=True)]
    else:
        return kind
    more = f" and {len(parts) - MOST} more" if len(parts) > MOST else ""
    return f"{kind} with {', '.join(parts[:MOST]) or 'nothing in it'}{more}"


def _number(key: OutputKey) -> int | None:
    if isinstance(key, int):
        return key
    return int(key) if key.removeprefix("-").isdecimal() else None


def _short(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
