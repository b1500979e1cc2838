"""The grid pointing game: localisation without boxes, on grids of several pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.metrics.localization.heat_inside import heat_inside
from camcli.registry import metric


def build_grid(pictures: Tensor) -> Tensor:
    """Puts n x n pictures together, row by row.  [n*n c h w] -> [c n*h n*w]

    arXiv:2104.00032 takes pictures of different classes that are classified correctly and with high
    confidence.  Raises UsageError for a number of pictures that fills no square.
    """
    edge = _compute_edge(len(pictures))
    rows = [torch.cat(list(pictures[i * edge : (i + 1) * edge]), -1) for i in range(edge)]
    return torch.cat(rows, -2)


@metric(
    "grid_pointing_game",
    family="localisation",
    direction="higher",
    range=(0, 1),
    paper="arXiv:2104.00032",
    of_grids=True,
)
def grid_pointing_game(maps: Tensor) -> Tensor:
    """The share of each map's positive heat that lies in its own cell.  [b H W] -> [b]

    Map i of a grid of b = n*n explains the class of the picture in cell i, counted row by row
    (arXiv:2104.00032).  Chance, and a uniform map, score 1 / (n*n).  Raises UsageError for a number
    of maps that fills no square, and for a size that n does not divide.

    >>> import torch
    >>> heat = torch.zeros(4, 2, 2)
    >>> heat[0, 0] = 1
    >>> heat[3, 1, 1] = 1
    >>> grid_pointing_game(heat)
    tensor([0.5000, 0.0000, 0.0000, 1.0000])
    """
    edge = _compute_edge(len(maps))
    height, width = maps.shape[-2:]
    if height % edge or width % edge:
        raise UsageError(
            f"A grid of {edge} x {edge} pictures needs maps whose sides {edge} divides, not "
            f"{width} x {height}."
        )
    shares = []
    for index, heat in enumerate(maps):
        row, column = divmod(index, edge)
        mask = torch.zeros(height, width, dtype=torch.bool, device=maps.device)
        rows = slice(row * height // edge, (row + 1) * height // edge)
        mask[rows, column * width // edge : (column + 1) * width // edge] = True
        shares.append(heat_inside(heat[None], mask)[0])
    return torch.stack(shares)


def _compute_edge(count: int) -> int:
    edge = math.isqrt(count)
    if edge < 1 or edge * edge != count:
        raise UsageError(f"A grid has 1, 4, 9, 16, ... pictures, not {count}.")
    return edge
