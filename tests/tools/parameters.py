"""Counts the parameters of timm's models anew: `python -m tests.tools.parameters` (6 minutes).

Writes `camcli/models/parameters.csv`, where `camviz models` reads what timm does not know of a
model that is not built, and says which architectures NO_CLASSIFIER in `families.py` is wrong about.
"""

from __future__ import annotations

import csv
import sys

import timm
import torch
from timm.models import get_arch_pretrained_cfgs

from camcli.models.catalogue import PARAMETERS, count_parameters, list_entries
from camcli.models.inspection import quirks


def main() -> str:
    """Writes a row for each of timm's names, in their order; returns what is wrong."""
    names = [entry.name for entry in list_entries() if entry.library == "timm"]
    rows = [(name, count_parameters(name)) for name in names]
    with PARAMETERS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "parameters"))
        writer.writerows((name, count) for name, count in rows if count)
    uncounted = [f"{name} cannot be counted" for name, count in rows if not count]
    mistaken = [
        f"{name}: NO_CLASSIFIER is wrong about it"
        for name in timm.list_models()
        if can_classify(name) != quirks.can_classify(name)
    ]
    return "\n".join(uncounted + mistaken)


def can_classify(name: str) -> bool:
    """Tells whether an architecture takes a number of classes; built only where none is known."""
    configs = get_arch_pretrained_cfgs(name).values()
    if any(config.num_classes for config in configs):
        return True
    with torch.device("meta"):
        return bool(timm.create_model(name, num_classes=7).num_classes == 7)


if __name__ == "__main__":
    sys.exit(main() or 0)
