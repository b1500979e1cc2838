"""What a run wrote into its folder, besides what it keeps of itself."""

from pathlib import Path

from camcli.runs.jsonl import STATE

KEPT = {"manifest.jsonl", "run.json"}


def outputs(folder: Path) -> list[Path]:
    """Lists the overlays, and what stands beside them, at any depth."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [p for p in files if p.name not in KEPT and STATE not in p.relative_to(folder).parts]
