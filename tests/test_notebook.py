"""The notebook of the handbook gives what it says."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import camcli
from tests.checkout import ROOT

DOCS = Path(camcli.__file__).parent / "docs"
PAGE = (DOCS / "notebook.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d+\.\d+")
CELL = re.compile(r"```python\n(.*?)```\n(?:\n```\n(.*?)```\n)?", re.DOTALL)


def run_cell(code: str, names: dict[str, Any]) -> str:
    """Runs a cell as notebooks do: what it prints, and its last expression's value."""
    *body, last = ast.parse(code).body
    printed = io.StringIO()
    with redirect_stdout(printed):
        if not isinstance(last, ast.Expr) or code.rstrip().endswith(";"):
            body, value = [*body, last], None
        exec(compile(ast.Module(body, []), "notebook", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "notebook", "eval"), names)
    return printed.getvalue() + ("" if value is None else f"{value!r}\n")


def list_cells() -> Iterator[tuple[str, str]]:
    yield from CELL.findall(PAGE)


def assert_says(given: str, output: str) -> None:
    """The same words, and the same numbers but for what processors round otherwise."""
    assert NUMBER.sub("#", given) == NUMBER.sub("#", output)
    pairs = zip(NUMBER.findall(given), NUMBER.findall(output), strict=True)
    assert all(abs(float(a) - float(b)) < 0.11 for a, b in pairs), given


def test_its_cells_give_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo_images").symlink_to(ROOT / "demo_images")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    cells = list(list_cells())
    for code, output in cells:
        given = run_cell(code, names)
        if output:
            assert_says(given, output)
    assert len(cells) > 8 and sum(bool(output) for _, output in cells) > 7
    # the picture of the page is the one that its cell writes, but for the letters' font
    with Image.open("sheet.png") as drawn, Image.open(DOCS / "pictures" / "notebook.jpg") as shown:
        small = drawn.convert("RGB").resize(shown.size, Image.Resampling.LANCZOS)
        difference = np.abs(np.asarray(small, int) - np.asarray(shown.convert("RGB"), int))
    assert difference.mean() < 3
    assert Path("figure.pdf").read_bytes().startswith(b"%PDF")
