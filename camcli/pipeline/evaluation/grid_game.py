"""The grid pointing game on a user's own pictures: grids of different classes, and their maps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from camcli.engine.targets import FixedCategories
from camcli.errors import CamvizError, ImageError, UnknownName
from camcli.methods.postprocessing import enlarge
from camcli.metrics.baseline_maps import BASELINE_MAPS
from camcli.metrics.localization.grid_pointing_game import build_grid
from camcli.pipeline.evaluation.evaluation import (
    Contender,
    Evaluation,
    PictureScores,
    answer_methods,
    read_picture,
    score_classes,
)
from camcli.pipeline.writing.output_writer import describe_failure
from camcli.records import Source
from camcli.registry import METRICS

EDGE = 2  # pictures along each edge of a grid


@dataclass(frozen=True)
class Cell:
    """A measured picture that can go into a grid, with its explained class.

    `agreement` is that of the methods' maps of the picture.
    """

    source: Source
    category: int
    label: str
    probability: float | None
    number: int
    agreement: float | None = None


def choose_grids(cells: Sequence[Cell], seed: int, edge: int = EDGE) -> list[tuple[Cell, ...]]:
    """Draws grids of edge x edge pictures, all of different classes; each picture once at most.

    Classes with the most remaining pictures are drawn first, which gives the largest number of
    grids.

    >>> from pathlib import Path
    >>> from camcli.records import Source
    >>> cells = [Cell(Source(Path(str(n))), n % 4, "", None, n) for n in range(9)]
    >>> [sorted(cell.category for cell in grid) for grid in choose_grids(cells, seed=0)]
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    draw = random.Random(seed)
    by_class: dict[int, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.number):
        by_class.setdefault(cell.category, []).append(cell)
    waiting = list(by_class.values())
    for pictures in waiting:
        draw.shuffle(pictures)
    grids: list[tuple[Cell, ...]] = []
    while True:
        draw.shuffle(waiting)
        waiting.sort(key=len, reverse=True)
        first = waiting[: edge * edge]
        if len(first) < edge * edge or not first[-1]:
            return grids
        grid = [pictures.pop() for pictures in first]
        draw.shuffle(grid)
        grids.append(tuple(grid))


class GridGame:
    """Puts pictures together, and measures the maps of each picture's class on the grid.

    A grid is as large as its pictures together, as in arXiv:2104.00032, if the network takes that
    size.  Otherwise the pictures are reduced (`is_reduced`), so that the grid has the network's own
    size.
    """

    metric = "grid_pointing_game"

    def __init__(self, evaluation: Evaluation, edge: int = EDGE) -> None:
        self._evaluation, self._edge = evaluation, edge
        preprocessing = evaluation.plan.classifier.preprocessing
        self._size = preprocessing.size
        self.is_reduced = not self._takes_large(len(preprocessing.mean))

    @property
    def refusal(self) -> str:
        """Why the network takes no grid; empty if it takes one."""
        if not self.is_reduced or all(size % self._edge == 0 for size in self._size):
            return ""
        height, width = self._size
        edge = self._edge
        return (
            f"the network takes only {width} x {height} pixels, which cannot be split into {edge} "
            f"x {edge} cells"
        )

    def _takes_large(self, channels: int) -> bool:
        height, width = (edge * self._edge for edge in self._size)
        try:
            score_classes(self._evaluation.plan, torch.zeros(1, channels, height, width))
        except Exception:  # networks refuse a size by all kinds of errors
            return False
        return True

    def measure(
        self, grid: Sequence[Cell], number: int, contenders: Sequence[Contender]
    ) -> Iterator[PictureScores]:
        """Measures a grid in one pass: for each cell, the share of its class's heat that is inside.

        If a picture cannot be read, its error is returned and its grid is left out.
        """
        views: list[Tensor] = []
        for cell in grid:
            try:
                prepared = read_picture(
                    cell.source, self._evaluation.plan, self._evaluation.options
                )
            except (ImageError, MemoryError, UnknownName) as error:
                why = describe_failure(error, cell.source.path)
                yield PictureScores(cell.source, error=why, number=cell.number)
                return
            views.append(prepared.view.inputs)
        try:
            values = self._measure(torch.stack(views), [cell.category for cell in grid], contenders)
        except (CamvizError, MemoryError) as error:
            names = ", ".join(str(cell.source) for cell in grid)
            yield PictureScores(grid[0].source, error=f"the grid of {names}: {error}")
            return
        for place, cell in enumerate(grid):
            yield PictureScores(
                cell.source,
                cell.category,
                cell.label,
                cell.probability,
                tuple(contenders),
                {self.metric: values[:, place].double().numpy()},
                number=cell.number,
                grid=number,
            )

    def _measure(
        self, views: Tensor, categories: Sequence[int], contenders: Sequence[Contender]
    ) -> Tensor:
        """Returns each contender's value in each cell.  [n c h w] -> [contenders n]"""
        image = build_grid(self._reduce(views) if self.is_reduced else views)
        plan = self._evaluation.plan
        choice = FixedCategories(torch.tensor([list(categories)]))
        result = answer_methods(plan, image[None], choice, plan.request.names, layouts={})
        apart = self._evaluation.options.layer_fusion == "none" and len(plan.request.layers) > 1
        size = (image.shape[-2], image.shape[-1])
        # at the layer's size; they are enlarged when they are measured
        by_name = {name: make(image)[None] for name, make in BASELINE_MAPS.items()}
        for method, layers in result.maps.items():
            for layer, maps in layers.items():
                name = f"{method} {layer}" if apart and layer else method
                by_name[name] = _join_slices(maps[0]).float()
        function = METRICS[self.metric].function
        shares = [
            # a method without a class has one map for all cells
            function(enlarge(by_name[one.name].cpu(), size).expand(len(categories), *size))
            for one in contenders
        ]
        return torch.stack(shares)

    def _reduce(self, views: Tensor) -> Tensor:
        """Reduces pictures, so that a grid of them has the network's size.  [n c h w]"""
        height, width = (edge // self._edge for edge in self._size)
        return F.interpolate(views, (height, width), mode="bilinear", antialias=True)


def _join_slices(maps: Tensor) -> Tensor:
    """Averages the maps of a picture's slices.  [k (t) h w] -> [k h w]"""
    return maps.mean(1) if maps.ndim == 4 else maps
