"""Names of models and of their layers that are known without building one; needs no torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import quote

# timm's names, and how many parameters their models have
PARAMETERS = Path(__file__).with_name("parameters.csv")
TORCHVISION = Path(__file__).with_name("torchvision_names.txt")
EMBEDDED_LAYERS = Path(__file__).with_name("embedded") / "layers.txt"
EMBEDDED = "embedded"


@cache
def list_timm_names() -> tuple[str, ...]:
    """Returns timm's models with the tags of their weights: `resnet50.a1_in1k`."""
    with PARAMETERS.open(encoding="utf-8", newline="") as file:
        return tuple(row["name"] for row in csv.DictReader(file))


@cache
def list_architectures() -> tuple[str, ...]:
    """Returns all that can stand behind `-m` without a tag: embedded, timm's and torchvision's."""
    timm = (name.partition(".")[0] for name in list_timm_names())
    torchvision = TORCHVISION.read_text(encoding="utf-8").split()
    return tuple(dict.fromkeys([EMBEDDED, *timm, *torchvision]))


def note_layers(model: str, layers: Iterable[str]) -> None:
    """Notes the layers of a model for completion; nothing is lost where that cannot be written."""
    file = _find_notes(model)
    text = "".join(f"{name}\n" for name in layers)
    with suppress(OSError, ValueError):
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


def read_layers(model: str) -> tuple[str, ...]:
    """Returns the layers that were noted of a model; the embedded one's are always known."""
    file = EMBEDDED_LAYERS if model == EMBEDDED else _find_notes(model)
    with suppress(OSError, ValueError):
        return tuple(file.read_text(encoding="utf-8").splitlines())
    return ()


def find_notes_folder() -> Path:
    """Returns where layers are noted, in the person's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "camviz" / "layers"


def _find_notes(model: str) -> Path:
    plain_name = model.removeprefix("timm/").removeprefix("torchvision/")
    if "/" not in plain_name and ":" not in plain_name:
        plain_name = plain_name.partition(".")[0]  # a tag names weights
    return find_notes_folder() / f"{quote(plain_name, safe='')}.txt"
