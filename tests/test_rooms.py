"""What a room's neighbours may use: the room says it, and nobody imports more.

A room is a package inside a part of the house.  Most re-export what their neighbours may use, in
`__all__`.  Where that would import in a circle, or all of a room for one small file, the room lists
`module.name` in `PUBLIC`, and its neighbours import from the files.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module

import pytest

from tests.test_frame import SOURCES, TREES

ROOMS = sorted(
    name
    for name, path in SOURCES.items()
    if path.stem == "__init__"
    if name.split(".")[1:2] != ["cli"]
    if name.count(".") == 2 or name in ("camcli.config", "camcli.render", "camcli.runs")
)


Imports = Mapping[str, Sequence[str]]


def list_imports(tree: ast.Module) -> Iterator[str]:
    """Yields what a module imports anywhere in it, by its whole name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@cache
def list_all_imports() -> Imports:
    return {name: list(list_imports(tree)) for name, tree in TREES.items()}


def list_uses(room: str, imports: Imports) -> Iterator[tuple[str, str]]:
    """Yields who outside a room imports what of it, as `name` or `module.name`."""
    for importer, names in imports.items():
        if importer == room or importer.startswith(f"{room}."):
            continue
        for name in names:
            if name.startswith(f"{room}."):
                yield importer, name.removeprefix(f"{room}.")


def list_public(room: str) -> set[str]:
    package = import_module(room)
    return {*getattr(package, "PUBLIC", ()), *getattr(package, "__all__", ())}


@pytest.mark.parametrize("room", ROOMS)
def test_neighbours_import_what_is_public_and_nothing_else(room: str) -> None:
    public = list_public(room)
    uses = list_uses(room, list_all_imports())
    wrong = [f"{who} imports {name}" for who, name in uses if name not in public]
    assert wrong == [], f"{room} keeps that to itself; name it there if neighbours may use it"


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_public_exists_and_is_not_named_as_private(room: str) -> None:
    for entry in list_public(room):
        module, _, name = entry.rpartition(".")
        assert not name.startswith("_")
        if f"{room}.{entry}" not in SOURCES:
            assert hasattr(import_module(f"{room}.{module}".rstrip(".")), name), entry


@pytest.mark.parametrize("room", ROOMS)
def test_a_list_of_names_in_files_holds_no_more_than_is_used(room: str) -> None:
    used = {name for _, name in list_uses(room, list_all_imports())}
    assert set(getattr(import_module(room), "PUBLIC", ())) <= used


def test_imports_past_a_rooms_door_are_seen() -> None:
    sources = {
        "camcli.pipeline.runner": "from camcli.runs import Mode\nfrom camcli.runs.locks import a",
        "camcli.cli.app": "def f():\n    import camcli.runs.journal",
        "camcli.runs.merge": "from camcli.runs.locks import take",
    }
    imports = {name: list(list_imports(ast.parse(text))) for name, text in sources.items()}
    assert sorted(list_uses("camcli.runs", imports)) == [
        ("camcli.cli.app", "journal"),
        ("camcli.pipeline.runner", "Mode"),
        ("camcli.pipeline.runner", "locks.a"),
    ]
