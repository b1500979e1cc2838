"""What `import camcli` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

import camcli
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


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert camcli.__version__ == project["version"]
