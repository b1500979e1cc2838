"""The checkout under test: where it is, and which files belong to it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "camcli",
    "configs",
    "demo_images",
    "findings",
    "pyproject.toml",
    "tests",
}
LEFT_BEHIND = ("__pycache__", ".*_cache", "camviz-out")


def list_tracked() -> list[Path]:
    """Lists what git tracks, relative to ROOT; nothing where this is no git checkout."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return []
    command = ["git", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [Path(name) for name in listing.stdout.split("\0") if name]


def project_files() -> Iterator[Path]:
    """Yields the project's own files, whether or not git tracks them."""
    for top in (*sorted(TOP_LEVEL), ".ci", ".gitignore"):
        for path in (ROOT / top, *(ROOT / top).rglob("*")):
            if path.is_file() and not any(path.match(f"*{p}/*") for p in LEFT_BEHIND):
                yield path


def export(folder: Path) -> Path:
    """Copies the checkout without what running it left behind; returns the copy."""
    copy = folder / "checkout"
    copy.mkdir()
    for top in TOP_LEVEL:
        if (ROOT / top).is_dir():
            shutil.copytree(ROOT / top, copy / top, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        else:
            shutil.copy(ROOT / top, copy / top)
    return copy
