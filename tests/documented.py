"""What README and handbook show: commands and Python, out of their code blocks."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "camcli" / "docs").glob("*.md")))
SEPARATORS = ("|", "&&", ";")
# cell by cell, or with a training: by tests of their own
RUN_AS_A_WHOLE = ("notebook.md", "training.md")


@dataclass(frozen=True)
class Shown:
    """A command's words behind `camviz`, or a block of Python, and the page that shows it."""

    page: str
    text: str
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def list_blocks(page: Path) -> Iterator[str]:
    """Yields the code of a page: what stands in fences, or is indented by four columns."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    without = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    # an empty line within a block is followed by more of it
    for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", without, re.MULTILINE):
        yield textwrap.dedent(block)


def list_commands() -> Iterator[Shown]:
    """Yields each call of camviz, with whatever launches it left out."""
    for page in PAGES:
        for block in list_blocks(page):
            if not is_python(block):
                for line in block.splitlines():
                    yield from _find_calls(page.name, line)


def _find_calls(page: str, line: str) -> Iterator[Shown]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a text that is no command
        return
    command: list[str] = []
    for word in [*words, SEPARATORS[0]]:
        if word not in SEPARATORS:
            command.append(word)
            continue
        place = next((i for i, w in enumerate(command) if w in ("camviz", "camcli")), None)
        if place is not None:
            yield Shown(page, " ".join(command), tuple(command[place + 1 :]))
        command = []


def list_python() -> Iterator[Shown]:
    """Yields each block of Python."""
    for page in PAGES:
        for block in list_blocks(page):
            if is_python(block) and page.name not in RUN_AS_A_WHOLE:
                yield Shown(page.name, block)


def is_python(block: str) -> bool:
    """Tells whether a block is Python that uses camcli."""
    if "camcli" not in block:
        return False
    try:
        tree = ast.parse(block)
    except SyntaxError:
        return False
    return not all(isinstance(node, ast.Expr | ast.Assign) and _is_bare(node) for node in tree.body)


def _is_bare(node: ast.Expr | ast.Assign) -> bool:
    """Tells whether a line calls nothing, as a table of options does."""
    return not any(isinstance(inner, ast.Call) for inner in ast.walk(node))
