"""Times camviz beside the bare forward pass and the peers, and writes what was found.

Every contender takes its turn in every round.  `tests/benchmarks/figures.json` keeps the figures:
rows that are measured anew take the place of the old ones, for all of them take long.  `--write`
makes the handbook's page and the README's rows of them.  Needs the extra `peers`.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from camcli.utils.cpu import read_cpuinfo
from tests.benchmarks import commands, on_gpu, page
from tests.benchmarks.measure import measure_row
from tests.benchmarks.rows import rows

FIGURES = Path(__file__).with_name("figures.json")
COMMANDS: Mapping[str, Mapping[str, Callable[[], Iterable[dict[str, Any]]]]] = {
    "cpu": {
        "start-up": commands.start_up,
        "one-picture": commands.one_picture,
        "folder": commands.folder,
        "memory": commands.memory,
    },
    "cuda": {"devices": on_gpu.devices, "folder": on_gpu.folder, "ranks": on_gpu.ranks},
}


def main() -> None:
    """Measures the rows that are asked for, and prints each when it is there."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        help="only rows with all of these parts (resnet50 'batch 1'), or a command of --list",
    )
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--json", type=Path, default=FIGURES, help="the file of all figures")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--write", action="store_true", help="measure nothing, write the pages")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    kept = json.loads(args.json.read_text()) if args.json.exists() else []
    if args.write:
        page.write(kept)
        return
    if args.list:
        print(
            "\n".join([*(row.title for row in rows(args.device.type)), *COMMANDS[args.device.type]])
        )
        return
    facts = _describe_machine(args.device)
    for actual in _select_rows(args.words, args.device, peers=not args.no_peers):
        figure = {**actual, **facts}
        kept = page.merge_rows(kept, [figure])
        page.save(kept, args.json)
        cells = page.gpu_cells if args.device.type == "cuda" else page.cells
        print(*(cells(figure) if "ratios" in figure else actual.values()), sep=" | ", flush=True)


def _select_rows(
    words: list[str], device: torch.device, *, peers: bool
) -> Iterator[dict[str, Any]]:
    for name, command in COMMANDS[device.type].items():
        if words == [name] or not words:
            yield from command()
    for row in rows(device.type):
        # whole parts: `batch 1` is not in `batch 16`, nor gradcam in gradcam++
        if all(word in row.title.split(", ") for word in words):
            yield measure_row(row, device, peers=peers)


def _describe_machine(device: torch.device) -> dict[str, str]:
    """Says when and where: the kind of processor, never a host's name."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device.type,
        "machine": _machine(device),
        "torch": torch.__version__.partition("+")[0],
    }


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    processor = read_cpuinfo("model name") or "an unknown processor"
    return f"{threads} core{'s' * (threads > 1)} of {processor}"


if __name__ == "__main__":
    main()
