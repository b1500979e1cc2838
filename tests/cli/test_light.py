"""`--help` in a process of its own: the same page, of fewer imports."""

import subprocess
import sys
from importlib import import_module

import pytest

from camcli.cli import light
from camcli.cli.app import main

AND_TELL = """
import sys
from camcli.cli.app import main
sys.argv = ["camviz", *sys.argv[1:]]
main()
sys.stderr.write(" ".join(sys.modules))
"""


@pytest.mark.parametrize("arguments", [["--help"], []], ids=["--help", "nothing"])
def test_the_page_is_typers(
    arguments: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    main(arguments)
    wanted = "".join(capfd.readouterr())
    command = [sys.executable, "-c", AND_TELL, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    page, _, modules = (found.stdout + found.stderr).rpartition("\n")
    assert page + "\n" == wanted
    assert "typer.rich_utils" in modules.split()
    assert not {"markdown_it", "pygments", *light.UNUSED} & set(modules.split())


def test_another_typer_imports_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    names = ("typer.rich_utils", *light.UNUSED)
    for name in names:
        import_module(name)
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(typer, "rich_utils")
    monkeypatch.setattr(light, "UNUSED", dict.fromkeys(light.UNUSED, "Else"))
    light.import_help_pages()
    assert not set(names) & set(sys.modules)
    from rich.markdown import Markdown

    assert import_module("typer.rich_utils").Markdown is Markdown
