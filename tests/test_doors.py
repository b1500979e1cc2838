"""What a room's neighbours may use says in its docstring what it does, takes and raises."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

from camcli import errors
from tests.test_frame import SOURCES
from tests.test_rooms import ROOMS, list_public

ARRAYS = re.compile(r"\b(Tensor|NDArray)\b")
# a sentence, and behind it what goes in and comes out: `[b c h w] -> [b h w]`
SENTENCE = re.compile(r"[.;!?\])](  \S.*)?$")
KINDS = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}


def list_documented(room: str) -> Iterator[tuple[str, Any]]:
    """Yields a room's functions and classes, and the methods that these define."""
    for name in sorted(list_public(room)):
        if f"{room}.{name}" in SOURCES:
            continue
        module, _, last = name.rpartition(".")
        value = getattr(import_module(f"{room}.{module}" if module else room), last)
        if not str(getattr(value, "__module__", "")).startswith("camcli"):
            continue
        if inspect.isfunction(value):
            yield f"{room}.{name}", value
        elif inspect.isclass(value):
            yield f"{room}.{name}", value
            yield from (
                (f"{room}.{name}.{key}", method)
                for key, method in vars(value).items()
                # a field whose default is a function is none of them
                if inspect.isfunction(method) and method.__name__ == key and key[0] != "_"
            )


def find_faults(name: str, value: Any) -> Iterator[str]:
    """Yields what a docstring lacks."""
    # its own and no base class's; a dataclass without one has its fields there
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    text = inspect.cleandoc(own or "")
    if not text or text.startswith(f"{name.rpartition('.')[2]}("):
        yield f"{name} has no docstring"
        return
    first = text.splitlines()[0]
    if not SENTENCE.search(first):
        yield f"{name} does not begin with a sentence on a line: {first!r}"
    if inspect.isfunction(value):
        yield from _find_faults_of_function(name, value, text)


def _find_faults_of_function(name: str, function: Callable[..., Any], text: str) -> Iterator[str]:
    arrays = [
        key for key, hint in inspect.get_annotations(function).items() if ARRAYS.search(str(hint))
    ]
    if arrays and "[" not in text:
        yield f"{name} does not say the shape of {', '.join(arrays)}"
    raised = set(_list_raised(function))
    if raised and not ("aises" in text or any(kind in text for kind in raised)):
        yield f"{name} does not say that it raises {', '.join(sorted(raised))}"


def _list_raised(function: Callable[..., Any]) -> Iterator[str]:
    """Yields the errors of a user that a function raises by itself."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    raised = [n.exc for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Raise)]
    made = [error.func for error in raised if isinstance(error, ast.Call)]
    yield from (name.id for name in made if isinstance(name, ast.Name) and name.id in KINDS)


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_public_says_what_it_does_takes_and_raises(room: str) -> None:
    faults = [fault for name, value in list_documented(room) for fault in find_faults(name, value)]
    assert not faults


def test_what_a_docstring_lacks_is_seen() -> None:
    from torch import Tensor

    def bare(x: Tensor) -> None:
        """Do this and that, of which the sentence goes on"""
        raise errors.ImageError(str(x))

    def full(x: Tensor) -> Tensor:
        """Turns a map round.  [h w] -> [w h]"""
        return x.T

    assert not list(find_faults("full", full))
    told = " ".join(find_faults("bare", bare))
    assert "a sentence on a line" in told and "the shape of x" in told
    assert sum(len(list(list_documented(room))) for room in ROOMS) > 300
