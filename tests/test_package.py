"""What `import camcli` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib

import pytest

import camcli
from tests import api_surface
from tests.checkout import ROOT


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, camcli; print([m for m in ('torch', 'timm', 'numpy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", camcli.__all__)
def test_everything_promised_is_there(name: str) -> None:
    value = getattr(camcli, name)
    assert name == "__version__" or callable(value)
    assert name in dir(camcli)


def test_nothing_else_is_promised() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = camcli.nonsense


def test_the_public_interface_is_as_it_is_written_down() -> None:
    written = api_surface.FILE.read_text(encoding="utf-8").splitlines()
    actual = api_surface.list_surface()
    lost = [f"- {line}" for line in written if line not in actual]
    added = [f"+ {line}" for line in actual if line not in written]
    assert actual == written, "\n".join(
        [
            "The public interface is not what tests/api_surface.txt says:",
            *lost,
            *added,
            "What is lost (-) breaks the code of people who use it.  If the change is meant: run",
            "`python -m tests.api_surface`, commit the file, and say it in CHANGELOG.md.",
        ]
    )


def test_the_written_interface_tells_kinds_and_defaults() -> None:
    def example(first: int, second: int = 2, *, third: str = "x", **rest: int) -> None: ...

    parameters = inspect.signature(example).parameters.values()
    assert [api_surface.describe_parameter(p) for p in parameters] == [
        "first",
        "second=2",
        "third='x', keyword only",
        "**rest",
    ]


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert camcli.__version__ == project["version"]
