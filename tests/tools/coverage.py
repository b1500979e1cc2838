"""Explains one model of every family, with random weights: `python -m tests.tools.coverage --all`.

Writes `camcli/docs/models.md`: timm's modules, each by its smallest model that has a classifier,
and all of torchvision's classifiers (about an hour on two cores).  With names of models it prints
their rows only; with `--transformers` it writes the table of `camcli/docs/transformers.md`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

import camcli
from camcli.engine.layer_selection import find_default_layer
from camcli.errors import CamvizError, ModelError
from camcli.models import from_torchvision
from camcli.models.catalogue import list_entries
from camcli.models.inspection.target_layers import TargetLayer
from camcli.models.load import Classifier
from camcli.models.outputs.interpretation import find_output_reading
from tests.tools.corners import keeps_places, noise, outer_columns, prepare_module

TABLE = Path(camcli.__file__).parent / "docs" / "models.md"
METHODS = ("gradcam", "layercam", "eigencam")
JOBS = 2
STRIDE, WIDE = 32, 10 / 7
Size = tuple[int, int]


@dataclass(frozen=True)
class CoverageRow:
    """What was found of a model at its own size and, where it takes one, at an oblong one."""

    name: str
    layer: str = ""
    layout: str = ""
    sizes: tuple[Size, ...] = ()
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.layer}, {self.layout} at {self.spelled_sizes}: {self.result}"
            f" ({self.seconds:.0f} s)"
        )

    @property
    def spelled_sizes(self) -> str:
        return ", ".join(f"{h}x{w}" for h, w in self.sizes)

    @property
    def result(self) -> str:
        return "; ".join(self.problems) or "ok"


def check_coverage(name: str, *, quickly: bool = False) -> CoverageRow:
    """Explains a model with random weights, and lists what is wrong with the result.

    `quickly` looks for a bright corner at the oblong size alone, where the model takes one: there
    it tells more, for height and width differ.
    """
    start = time.monotonic()
    try:
        classifier = camcli.load_model(name, pretrained=False)
        classifiers = [classifier, *_oblong(name, classifier.preprocessing.size)]
        corners = [not quickly or one is classifiers[-1] for one in classifiers]
        targets, problems = zip(*map(_check, classifiers, corners), strict=True)
    except (CamvizError, RuntimeError) as error:
        return CoverageRow(name, problems=(f"{type(error).__name__}: {error}",))
    return CoverageRow(
        name=name,
        layer=targets[0].name,
        layout=targets[0].layout.description,
        sizes=tuple(classifier.preprocessing.size for classifier in classifiers),
        problems=tuple(problem for actual in problems for problem in actual),
        seconds=time.monotonic() - start,
    )


def _oblong(name: str, size: Size) -> list[Classifier]:
    """Loads a model for an input that is not square, at the first such size that it takes."""
    height, width = size
    # windows and blocks want whole multiples of themselves
    for wide in (round(width * WIDE / STRIDE) * STRIDE, 2 * width):
        with suppress(ModelError):
            return [camcli.load_model(name, pretrained=False, img_size=(height, wide))]
    return []


def _check(classifier: Classifier, corners: bool) -> tuple[TargetLayer, list[str]]:
    shape = (classifier.in_chans, *classifier.preprocessing.size)
    module = prepare_module(classifier.module, shape)
    # read as a run reads it, which finds the layer again where it is read otherwise
    target = find_default_layer(module, shape, find_output_reading(module, shape))
    problems = _find_misplaced(module, target, shape) if corners else iter(())
    return target, [*problems, *_find_bad_maps(module, target, shape)]


def _find_misplaced(
    module: nn.Module, target: TargetLayer, shape: tuple[int, int, int]
) -> Iterator[str]:
    size, columns = f"{shape[1]}x{shape[2]}", target.layout.grid[1]
    if not keeps_places(module, target.name, shape):
        yield f"a bright corner is not seen where it is at {size}"
    # a grid begun a token too early or too late shows one of them at the other end
    if target.layout.kind.endswith("tokens"):
        first, last = outer_columns(module, target.name, shape, columns)
        if not first < columns // 2 <= last:
            yield f"the outer columns are seen at {first} and {last} of {columns} at {size}"


def _find_bad_maps(
    module: nn.Module, target: TargetLayer, shape: tuple[int, int, int]
) -> Iterator[str]:
    size = f"{shape[1]}x{shape[2]}"
    maps: dict[str, Tensor] = camcli.heatmaps(module, noise(shape), METHODS)
    for method, values in maps.items():
        if values.shape[1:] != target.layout.grid:
            yield f"{method} has a {list(values.shape[1:])} grid at {size}"
        if not values.isfinite().all():
            yield f"{method} is not finite at {size}"
        elif values.std() == 0:
            yield f"{method} is the same everywhere at {size}"


def smallest() -> dict[str, str]:
    """Returns timm's modules, each with its smallest model that has a classifier."""
    sizes = {
        entry.name.partition(".")[0]: entry.parameters
        for entry in list_entries()
        if entry.library == "timm" and entry.classes and entry.parameters
    }
    results = {}
    for module in timm.list_modules():
        names = [name for name in timm.list_models(module=module) if name in sizes]
        if names:
            results[module] = min(names, key=lambda name: sizes[name])
    return results


def _all(names: Iterable[str]) -> Iterator[CoverageRow]:
    # a fresh process now and then gives back what large models took
    context = multiprocessing.get_context("spawn")
    with context.Pool(JOBS, initializer=_begin, maxtasksperchild=8) as pool:
        yield from pool.imap_unordered(check_coverage, names)


def _begin() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


HEAD = "| default layer | layout | checked at | result |\n|---|---|---|---|---|"


def _table(first: str, rows: Iterable[tuple[str, CoverageRow]]) -> str:
    lines = (
        f"| {name} | {row.layer} | {row.layout} | {row.spelled_sizes} | {row.result} |"
        for name, row in rows
    )
    return "\n".join((f"| {first} {HEAD}", *lines))


def page(timm_rows: dict[str, CoverageRow], torchvision_rows: dict[str, CoverageRow]) -> str:
    """Writes the handbook's page from the rows of timm's modules and torchvision's names."""
    without = sorted(set(timm.list_modules()) - timm_rows.keys())
    of_timm = ((f"{module}: `{row.name}`", row) for module, row in timm_rows.items())
    of_torchvision = ((f"`{name}`", row) for name, row in torchvision_rows.items())
    return f"""# Models that are explained without options

`camviz img.jpg -m NAME` takes every classifier of timm and torchvision; `camviz models` lists them,
and `camviz help weights` tells of weights, checkpoints and models of your own. The target layer and
its layout are measured, not looked up: this table shows what was found, with random weights, for
the smallest model in each of timm's {len(timm_rows)} modules that have a classifier, and for all
{len(torchvision_rows)} classifiers of torchvision. Each was checked at the sizes in the last column
(one of them not square, where the model takes such pictures): a bright corner of the input changes
the activations in that corner, the first and last column of tokens stand where they should, and
Grad-CAM, LayerCAM and EigenCAM are finite. It is written by `python -m tests.tools.coverage --all`.

## timm {timm.__version__}

{_table("module: model", of_timm)}

## torchvision {torchvision.__version__}

{_table("model", of_torchvision)}

## Without a map

| | why |
|---|---|
| timm's modules {", ".join(without)} | their models come without a classifier, so there is no class to ask for; `--method eigencam` shows what they see |
| TorchScript and exported programs | hooks cannot look inside: explain the model that they were made from |

LeViT's attention between stages has no shortcut, and EfficientViT's linear attention takes the mean
of nearly all places, so that with random weights no place keeps its place: these two were checked
with attention that prefers near places (LeViT) or is weak (EfficientViT).
"""  # noqa: E501


def _cover_transformers(names: list[str]) -> int:
    # an extra, which the other tables do without
    from tests.tools import transformers_coverage

    _begin()
    rows = transformers_coverage.run(names)
    return int(any(row.problems for row in rows))


def main(arguments: list[str]) -> int:
    """Prints a row a model, writes the page for `--all`; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.coverage", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="every family; writes models.md")
    parser.add_argument(
        "--transformers",
        action="store_true",
        help="tiny ones, into its page",
    )
    asked = parser.parse_args(arguments)
    if asked.transformers:
        return _cover_transformers(asked.names)
    families = {module: f"timm/{name}" for module, name in smallest().items()} if asked.all else {}
    others = (
        {name: f"torchvision/{name}" for name in from_torchvision.list_names()} if asked.all else {}
    )
    rows: dict[str, CoverageRow] = {}
    for row in _all([*asked.names, *families.values(), *others.values()]):
        print(row, flush=True)
        rows[row.name] = row
    if asked.all:
        actual = [{key: rows[name] for key, name in part.items()} for part in (families, others)]
        TABLE.write_text(page(*actual), encoding="utf-8")
    return int(any(row.problems for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
