"""Prints the README's two commands: the fenced lines that begin with `python -m venv`."""

import re
import sys
from pathlib import Path

FENCED = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(readme: str) -> list[str]:
    """Returns the fenced lines that begin with `python -m venv`, in their order."""
    lines = "".join(FENCED.findall(readme)).splitlines()
    return [line for line in lines if line.startswith("python -m venv")]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    listed = commands(path.read_text(encoding="utf-8"))
    if len(listed) != 2:
        sys.exit(f"{path} has {len(listed)} commands that begin with `python -m venv`, not two.")
    sys.stdout.write("\n".join(listed) + "\n")
