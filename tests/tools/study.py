"""Measures every class-dependent method with every metric: `python -m tests.tools.study FOLDER`.

FOLDER is as for `tests.tools.semantics`: `photos/`, `boxes/` (YOLO with COCO's numbers) and
`imagenet.csv`.  The default model is asked at its default layer, and the whole photo is squashed
into view.  Four runs of `camviz evaluate` go into `--save-path`, and each goes on where it was cut
off: where the heat lies, by the methods that cost a few passes, on all photos; what the score is
made of, by the same methods, on a part of the photos; all other metrics of these, and the methods
that cost hundreds of passes at the settings of `tests.tools.semantics`, on a few.  Of methods whose
maps are the same on this model, which is looked at first, one is measured for all.  Prints the
tables of `camcli/docs/study.md`; `--tables` prints them of what is there already, and `--methods`
measures others, for a row more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import camcli
import camcli.methods
import camcli.metrics
from camcli.method_info import METHOD_INFO
from camcli.method_terms import BEST
from camcli.registry import METHODS, METRICS, depends_on_category
from tests.tools.semantics import COCO

# read off the map
WHERE = ("pointing_game", "heat_inside", "pixel_ap", "box_iou")
# dozens of passes of altered pictures for each map, or hundreds of thresholds
SCORE = ("deletion", "insertion", "road", "max_box_accuracy")
# fifty maps for one, so that of a method with hundreds of passes it is not measured
DEAR = ("max_sensitivity", "infidelity")
SOME, FEW = 24, 4  # photos
SETTINGS = (
    "scorecam.max_channels=128", "sscam.max_channels=32", "iscam.max_channels=32", "rise.masks=500",
)  # fmt: skip
ATTENTION = ("genericattention", "gradattention", "legrad")  # of transformers alone
# the largest difference of two maps up to 1 that are the same map, and of how many classes
ROUNDING, LIKELIEST = 1e-5, 12


@dataclass(frozen=True)
class Part:
    """One run of `camviz evaluate`: its folder, methods, metrics, and how many photos at most."""

    name: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    photos: int | None = None
    settings: tuple[str, ...] = ()


def find_relatives(photos: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """Returns, by the one that is measured, the cheap methods whose maps are the same.

    They are compared for the likeliest classes, since maps of unlikely ones may have another sign.
    """
    classifier = camcli.load_model(fit="squash")
    names = [name for name in list_methods() if METHOD_INFO[name].gradients]
    maps: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for photo in photos:
        for explanation in camcli.explain(classifier, photo, names, top_k=LIKELIEST):
            heat = torch.from_numpy(explanation.heatmap)
            maps[explanation.method].append(heat / heat.abs().max())
    relatives: dict[str, tuple[str, ...]] = {}
    for name in names:
        first = next((one for one in relatives if _are_equal(maps[name], maps[one])), name)
        relatives[first] = (*relatives.get(first, ()), name)
    return relatives


def _are_equal(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(a.shape == b.shape and float((a - b).abs().max()) <= ROUNDING for a, b in pairs)


def list_methods() -> tuple[str, ...]:
    """Returns the methods that explain a class of a convolutional network."""
    return tuple(name for name in METHODS if depends_on_category(name) and name not in ATTENTION)


def list_parts(measured: Iterable[str]) -> tuple[Part, ...]:
    """Returns the runs of the study, made from the registries; `measured` stands for relatives."""
    dear = tuple(name for name in list_methods() if not METHOD_INFO[name].gradients)
    cheap = (BEST, *measured)
    others = tuple(name for name in METRICS if name not in (*WHERE, *SCORE))
    few = tuple(name for name in METRICS if name not in DEAR)
    return (
        Part("where", cheap, WHERE),
        Part("score", cheap, SCORE, SOME),
        Part("perturbation", ("gradcam", *dear), few, FEW, SETTINGS),
        Part("others", cheap, others, FEW),
    )


def list_parts_of(methods: Sequence[str]) -> tuple[Part, ...]:
    """Returns the parts for methods of a few passes, with `methods` in the place of these."""
    parts = list_parts(())
    return tuple(replace(part, methods=tuple(methods)) for part in parts if BEST in part.methods)


def evaluate(part: Part, folder: Path, save_path: Path) -> None:
    """Runs or goes on with one part."""
    photos = sorted((folder / "photos").glob("*.jpg"))[: part.photos]
    target = save_path / part.name
    words = [
        *(sys.executable, "-m", "camcli", "evaluate", "@" + _write_list(save_path, part, photos)),
        *("--boxes", str(folder / "boxes"), "--fit", "squash", "--no-plots"),
        *(
            "--box-names",
            _write_names(save_path),
            "--label-map",
            _write_meanings(folder, save_path),
        ),
        *("--method", ",".join(part.methods), "--metrics", ",".join(part.metrics)),
        *("--disagreements", "0", "--save-path", str(target), "-q"),
        *(word for setting in part.settings for word in ("--set", setting)),
        *(["--resume"] if target.exists() else []),
    ]
    subprocess.run(words, check=True)


def _write_list(save_path: Path, part: Part, photos: Iterable[Path]) -> str:
    file = save_path / f"{part.name}.txt"
    file.write_text("".join(f"{photo.resolve()}\n" for photo in photos), encoding="utf-8")
    return str(file)


def _write_names(save_path: Path) -> str:
    file = save_path / "names.txt"
    file.write_text("".join(f"{name}\n" for name in COCO), encoding="utf-8")
    return str(file)


def _write_meanings(folder: Path, save_path: Path) -> str:
    """Writes the folder's CSV with the heading that `--label-map` reads."""
    lines = (folder / "imagenet.csv").read_text(encoding="utf-8").splitlines()
    file = save_path / "meanings.csv"
    file.write_text("\n".join(["name,indices", *lines[1:]]) + "\n", encoding="utf-8")
    return str(file)


def format_table(summary: Mapping[str, Any], relatives: Mapping[str, Sequence[str]]) -> str:
    """Writes what an `evaluation.json` says as Markdown: what a map costs, and a column a metric.

    Relatives share a row.  The best mean is bold; one that may be as good, for all that the test
    can tell, has a `~`.
    """
    results = summary["metrics"]
    head = [f"{result['metric']} {_arrow(result)}" for result in results]
    lines = [_join(["method", "passes", *head]), _join(["---"] * (len(head) + 2))]
    for row in results[0]["contenders"]:
        names = ", ".join(relatives.get(row["name"], [row["name"]]))
        cells = (_format_cell(result, row["name"]) for result in results)
        lines.append(_join([names, _find_cost(row["name"]), *cells]))
    return "\n".join([f"{results[0]['pictures']} pictures\n", *lines])


def _find_cost(name: str) -> str:
    """Returns what a map costs; that of `best` is its parts', all of one pass."""
    info = METHOD_INFO.get("gradcam" if name == BEST else name)
    return info.cost if info else "none"


def _arrow(result: Mapping[str, Any]) -> str:
    return "↑" if result["direction"] == "higher" else "↓"


def _format_cell(result: Mapping[str, Any], name: str) -> str:
    row = next(row for row in result["contenders"] if row["name"] == name)
    if row["mean"] is None:
        return "-"
    text = f"{row['mean']:.3f}"
    if name == result["best"]:
        return f"**{text}**"
    return text + (" ~" if row["p"] is not None and row["p"] >= 0.05 else "")


def _join(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measures, then prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--save-path", type=Path, default=Path("study"))
    parser.add_argument("--tables", action="store_true", help="of what is there already")
    parser.add_argument("--methods", help="these alone, in all parts: a,b")
    words = parser.parse_args()
    words.save_path.mkdir(parents=True, exist_ok=True)
    if words.methods:
        relatives: dict[str, tuple[str, ...]] = {}
        parts = list_parts_of(words.methods.split(","))
    else:
        relatives = find_relatives(sorted((words.folder / "photos").glob("*.jpg"))[:FEW])
        parts = list_parts(relatives)
    for part in parts:
        if not words.tables:
            evaluate(part, words.folder, words.save_path)
        file = words.save_path / part.name / "evaluation.json"
        if file.exists():
            summary = json.loads(file.read_text("utf-8"))
            print(f"## {part.name}\n\n{format_table(summary, relatives)}\n")


if __name__ == "__main__":
    main()
