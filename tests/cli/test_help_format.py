"""What `--help` shows: every option in its section, in colour on a terminal, in little time."""

import contextlib
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
import typer
import typer.main

from camcli.cli.app import app
from camcli.cli.commands import preview
from camcli.cli.help_format import EXAMPLES, WIDEST
from camcli.cli.options import Flags
from camcli.option_info import OPTION_INFO
from tests.cli.conftest import Asked, Run

ESCAPE = "\x1b["
COMMANDS = [
    "explain", "evaluate", "tune", "sanity", "report", "summary", "serve", "methods", "metrics",
    "models", "merge", "verify", "help", "completion",
]  # fmt: skip
AND_TELL = """
import sys
from camcli.cli.app import main
main(sys.argv[1:])
sys.stderr.write(" ".join(sys.modules))
"""


def _sections(page: str) -> dict[str, str]:
    actual = re.split(r"(?m)^(\w[\w ]*):\n", page)
    return dict(zip(actual[1::2], actual[2::2], strict=True))


ALL_PAGES = [("--help-all",), ("explain", "--help-all"), ("a.jpg", "--help-all")]


@pytest.mark.parametrize("arguments", ALL_PAGES, ids=" ".join)
def test_each_option_stands_in_its_panels_section(arguments: tuple[str, ...], run: Run) -> None:
    sections = _sections(run(*arguments).out)
    hints = get_type_hints(Flags, include_extras=True)
    for field in fields(Flags):
        panel = hints[field.name].__metadata__[0].rich_help_panel
        name = f"--{field.name.replace('_', '-')}"
        row = re.compile(rf"(?m)^  (-\w, )?{name}[ ,\n]")
        present = [title for title, rows in sections.items() if row.search(rows)]
        assert present == [panel], name
    assert next(iter(sections)) == "Arguments"
    assert re.match(r"  IMAGE  [A-Z]", sections["Arguments"])
    assert ("Commands" in sections) == (arguments == ("--help-all",))
    assert "Examples" not in sections


def test_the_first_page_has_twenty_options_and_six_examples_on_two_screens(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = run("-h").out
    assert page == run("--help").out == run().err
    assert len(page.splitlines()) <= 80
    sections = _sections(page)
    commands, examples = sections.pop("Commands"), sections.pop("Examples")
    assert len(re.findall(r"(?m)^  (?:-\w, )?--", "".join(sections.values()))) == 20
    assert len(re.findall(r"(?m)^  \w+  ", commands)) == len(COMMANDS)
    assert re.findall(r"(?m)^  (camviz .*\S)  +\S", examples) and list(sections)[-1] == "Settings"
    typed = [line.split("  ")[1] for line in examples.splitlines() if line.startswith("  camviz")]
    assert typed == list(EXAMPLES) and len(typed) == 6
    assert page.rstrip().endswith("All options: camviz --help-all. The handbook: camviz help.")
    # what is said of an option in short is what all its places say
    assert OPTION_INFO["top_k"] in page


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_is_understood(
    example: str, asked: Asked, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(preview, "show_model", lambda options, **_: shown.append(options.model))
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "photos/dog.jpg", "my.pth"):
        (tmp_path / name).touch()
    with contextlib.chdir(tmp_path):
        result = run(*example.split()[1:])
    if "--preview-model" in example:
        assert (result.code, shown) == (0, example.split()[-1:])
    else:
        assert result.code == 0, result.err
        assert asked.options and [str(s) for s in asked.sources] in (
            ["cat.jpg"], ["photos/dog.jpg"]
        )  # fmt: skip


def test_the_version_in_short(run: Run) -> None:
    assert run("-V").out == run("--version").out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_page_that_fits(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (60, 80, 300):
        monkeypatch.setenv("COLUMNS", str(columns))
        page = run(command, "--help").out
        assert max(map(len, page.splitlines())) <= min(columns, WIDEST)
        names = ["-h", "--help"] if command != "explain" else ["-q", "--quiet"]
        assert f"  {', '.join(names)}" in page
        group = typer.main.get_command(app)
        text = typer.Context(group).command.commands[command].help
        assert " ".join(text.split()) in " ".join(page.split())


def test_what_is_typed_is_not_broken_at_its_hyphens(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in range(60, 102, 3):
        monkeypatch.setenv("COLUMNS", str(columns))
        page = run("--help-all").out
        for word in ("log-probability", "hf-hub:ORG/NAME", "local-dir:PATH", "camviz-out"):
            assert word in page, columns
        assert "\u2011" not in page


def test_the_commands_are_listed_with_their_first_paragraph(run: Run) -> None:
    rows = _sections(run("--help").out)["Commands"]
    assert re.findall(r"(?m)^  (\w+)  +[A-Z]", rows) == COMMANDS


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["terminal", "NO_COLOR", "dumb"],
)
def test_colours_are_for_terminals_that_want_them(
    environment: dict[str, str], coloured: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    group = typer.main.get_command(app)
    page = group.get_help(typer.Context(group, info_name="camviz"))
    assert (ESCAPE in page) == coloured
    plain = re.sub(r"\x1b\[\d+m", "", page)
    assert plain + "\n" == run("--help").out


def test_help_does_not_import_what_draws() -> None:
    command = [sys.executable, "-c", AND_TELL, "--help"]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--target-layers" in completed.stdout
    # rich's own share of the time was two thirds
    heavy = {"rich.console", "rich.table", "torch", "numpy", "pydantic"}
    assert not heavy & set(completed.stderr.split())
