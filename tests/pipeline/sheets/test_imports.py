"""What is not asked for costs an ordinary run nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.test_demo import PHOTO

LAZY = (
    "matplotlib", "camcli.render.colour_bar", "camcli.render.sheet_painting",
    "camcli.render.sheet_vectors", "camcli.pipeline.sheets.arrangement",
    "camcli.pipeline.sheets.run_sheet", "camcli.pipeline.comparison.model_comparison",
    "camcli.render.terminal.encodings",
)  # fmt: skip


def test_an_ordinary_run_imports_nothing_of_sheets(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom camcli.cli.app import main\n"
        f"assert main([{str(PHOTO)!r}, '-q', '--save-path', {str(tmp_path / 'o')!r}]) == 0\n"
        f"print([name for name in {LAZY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
