"""The handbook's map of the house, and CONTRIBUTING, name what is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import ROOT

PACKAGE = ROOT / "camcli"
MAP = PACKAGE / "docs" / "architecture.md"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (MAP, ROOT / "CONTRIBUTING.md")}
TEXT = PAGES[MAP.name]
MODULES = sorted(PACKAGE.rglob("*.py"))
DOZEN, LONG = 12, 500
LAW = re.compile(r"\blaw (\d)\b", re.IGNORECASE)


def section(text: str, heading: str) -> str:
    """Returns what stands below a heading, up to the next one."""
    (_, _, below) = text.partition(f"## {heading}\n")
    assert below, heading
    return below.partition("\n## ")[0]


def list_rooms() -> set[str]:
    """Lists the packages and the modules at the top, relative to the package."""
    packages = {path.parent for path in MODULES if path.name == "__init__.py"} - {PACKAGE}
    top = {path for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    return {str(path.relative_to(PACKAGE)) for path in packages | top}


def read_drawing() -> Iterator[str]:
    """Yields the rooms that are drawn, each below the folder that its indent puts it in."""
    above: list[str] = []
    for line in section(TEXT, "The rooms").splitlines():
        if match := re.fullmatch(r"    ( *)(\w+(?:/|\.py)) +\S.*", line):
            depth = len(match[1]) // 2 - 1
            above = [*above[:depth], match[2].rstrip("/")]
            yield "/".join(above)


def resolve(name: str) -> Any:
    """Imports what a dotted name means; raises ImportError or AttributeError."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise ImportError(name)


def list_tests(path: Path) -> set[str]:
    """Lists the names of the tests of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def code_of(text: str) -> list[str]:
    """Lists what stands between backticks, wherever a line was broken."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def test_every_room_is_drawn_in_its_place() -> None:
    drawn = list(read_drawing())
    assert sorted(drawn) == sorted({*list_rooms(), "docs"})


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_is_there(page: str) -> None:
    paths = re.findall(r"(?<![\w./])(?:camcli|tests|configs|findings|\.ci)/[\w./]*", PAGES[page])
    assert len(paths) >= 10
    assert [path for path in paths if not (ROOT / path.rstrip(".")).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_alone_is_there(page: str) -> None:
    files = [code for code in code_of(PAGES[page]) if re.fullmatch(r"\w+\.(py|md|toml)", code)]
    assert files
    homes = (ROOT, PACKAGE, PACKAGE / "engine" / "evidence")
    assert [name for name in files if not any((home / name).exists() for home in homes)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_name_that_is_named_is_there(page: str) -> None:
    names = [code for code in code_of(PAGES[page]) if re.fullmatch(r"camcli(\.\w+)+", code)]
    for name in names:
        resolve(name)
    assert names


@pytest.mark.parametrize("name", ["camcli.engine.nonsense", "camcli.records.Nonsense"])
def test_a_name_that_is_not_there_is_seen(name: str) -> None:
    with pytest.raises((ImportError, AttributeError)):
        resolve(name)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_named_is_there(page: str) -> None:
    commands = [code for code in code_of(PAGES[page]) if code.startswith("python -m ")]
    for command in commands:
        path = ROOT / command.split()[2].replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), command
    assert commands or page == MAP.name


def test_files_and_commands_of_tests_are_there_that_any_page_names() -> None:
    pages = [*sorted((PACKAGE / "docs").glob("*.md")), ROOT / "README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    files = re.findall(r"(?<![\w./])tests/[\w/]+\.py", text)
    commands = re.findall(r"python -m (tests(?:\.\w+)+)", text)
    assert files
    assert commands
    modules = [ROOT / command.replace(".", "/") for command in commands]
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert [m for m in modules if not (m.with_suffix(".py").exists() or m.is_dir())] == []


def test_every_test_that_is_named_is_there() -> None:
    laws = section(TEXT, "The laws of the engine")
    (file,) = set(re.findall(r"tests/[\w/]+\.py", laws))
    named = re.findall(r"`(test_\w+)`", laws)
    assert set(named) <= list_tests(ROOT / file)
    rows = [line for line in laws.splitlines() if line.startswith("| **Law")]
    for row in rows:
        _, _, kept_by, held_by, _ = row.split("|")
        assert re.search(r"`camcli/[\w/]+\.py`", kept_by), row
        assert re.search(r"`test_\w+`", held_by), row


def test_the_laws_that_are_cited_are_those_of_the_page() -> None:
    laws = re.findall(r"\*\*Law (\d):", section(TEXT, "The laws of the engine"))
    assert laws == [str(number) for number in range(1, 7)]
    cited = {law for path in MODULES for law in LAW.findall(path.read_text(encoding="utf-8"))}
    assert cited
    assert cited <= set(laws)


def test_a_file_that_cites_a_law_is_one_that_keeps_it() -> None:
    rows = section(TEXT, "The laws of the engine").splitlines()
    for path in MODULES:
        for law in LAW.findall(path.read_text(encoding="utf-8")):
            (row,) = (row for row in rows if row.startswith(f"| **Law {law}:"))
            assert f"`{path.relative_to(ROOT).as_posix()}`" in row


def test_a_room_or_file_that_is_large_has_a_reason() -> None:
    folders = {path.parent for path in MODULES}
    large = {
        folder
        for folder in folders
        if sum(p.name != "__init__.py" for p in folder.glob("*.py")) > DOZEN
    }
    long = {p for p in MODULES if len(p.read_text(encoding="utf-8").splitlines()) > LONG}
    rows = re.findall(r"^\| `([^`]+)` \| \S", section(TEXT, "Large rooms and files"), re.MULTILINE)
    # one that is large no longer needs no reason any more
    assert {ROOT / row for row in rows} == large | long


def test_each_word_of_ours_has_one_line() -> None:
    rows = re.findall(r"^\| ([\w ]+) \| [^|]+ \| `", section(TEXT, "Words of ours"), re.MULTILINE)
    assert len(rows) >= 20
    assert len(set(rows)) == len(rows)
    assert {"evidence", "scope", "plan"} <= set(rows)


def test_contributing_leads_to_the_map() -> None:
    assert "(camcli/docs/architecture.md)" in PAGES["CONTRIBUTING.md"]
