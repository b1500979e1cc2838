"""The public interface as text, a line a name: what `api_surface.txt` holds.

    python -m tests.api_surface

writes that file anew, after a change that is meant.  An entry that goes, or changes its kind or its
default, breaks the code of people who use it: give them a version with both, and say so in
CHANGELOG.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import camcli
from camcli import errors, records

FILE = Path(__file__).with_name("api_surface.txt")
# what the public classes hand out
RECORDS = ("Concept", "Heatmap", "Picture", "Preprocessing", "Record")


def list_surface() -> list[str]:
    """Lists the public names with their parameters, and the attributes of public classes."""
    public = [(f"camcli.{name}", getattr(camcli, name)) for name in camcli.__all__]
    handed_out = [(f"camcli.records.{name}", getattr(records, name)) for name in RECORDS]
    raised = [
        (f"camcli.errors.{name}", value)
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    lines: list[str] = []
    for name, value in [*public, *handed_out, *raised]:
        lines += _describe_name(name, value)
    return lines


def _describe_name(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, type) and issubclass(value, Exception | Warning):
        yield f"{name}({', '.join(base.__name__ for base in value.__bases__)})"
    elif isinstance(value, type):
        yield name
        if is_dataclass(value):
            yield from (f"{name}.{field.name}" for field in fields(value))
        for member, inside in vars(value).items():
            if member.startswith("_"):
                continue
            if isinstance(inside, property):
                yield f"{name}.{member}"
            elif callable(inside) or isinstance(inside, classmethod):
                yield from _describe_name(f"{name}.{member}", getattr(value, member))
    elif callable(value):
        yield f"{name}()"
        for parameter in inspect.signature(value).parameters.values():
            if parameter.name != "self":
                yield f"{name}(): {describe_parameter(parameter)}"
    else:
        yield name


def describe_parameter(parameter: inspect.Parameter) -> str:
    """Tells a parameter's name, kind and default."""
    plain = str(parameter.replace(annotation=parameter.empty))
    return f"{plain}, keyword only" if parameter.kind is parameter.KEYWORD_ONLY else plain


if __name__ == "__main__":
    FILE.write_text("\n".join(list_surface()) + "\n", encoding="utf-8")
