"""Every command on the handbook's page of the report runs, in the order of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from camcli.cli.app import main
from tests.checkout import ROOT

PAGE = ROOT / "camcli" / "docs" / "report.md"


def test_its_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.new("RGB", (48, 48), (40, 200 * number, 90)).save(f"photos/{number}.png")
    commands = re.findall(r"^    camviz ([^#\n]+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        assert main(shlex.split(command)) == 0, command
    assert (tmp_path / "out.html").is_file() and (tmp_path / "camviz-out/report.html").is_file()
