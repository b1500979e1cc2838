"""Similarity of maps by their histograms of oriented gradients (HOG)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from camcli.metrics.sanity.rank_correlation import correlate
from camcli.metrics.validation import check_at_least, check_maps

ORIENTATIONS = 9  # of half a turn
BLOCK = 3  # cells on an edge
CLIP, EPSILON = 0.2, 1e-5


def hog_similarity(maps: Tensor, others: Tensor, *, cell: int = 16) -> Tensor:
    """Returns the correlation of the maps' HOG features, -1 to 1.  [b H W], [b H W] -> [b]

    As in arXiv:1810.03292, section 3: Pearson's correlation of the features of cells of `cell` x
    `cell` pixels (default 16).  NaN where a map has no edges.  Raises UsageError for maps that are
    smaller than a cell, or of different sizes.
    """
    maps = check_maps(maps).double()
    others = check_maps(others, (maps.shape[1], maps.shape[2])).double()
    check_at_least(1, cell=cell)
    check_at_least(cell, height=maps.shape[1], width=maps.shape[2])
    pairs = zip(hog(maps, cell), hog(others, cell), strict=True)
    return torch.stack([correlate(one, other) for one, other in pairs]).float()


def hog(maps: Tensor, cell: int) -> Tensor:
    """Returns histograms of oriented gradients.  [b H W] -> [b features]

    Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177: central differences, 9 orientations of half a
    turn, blocks of 3 x 3 cells (or as many as there are), L2-Hys.  A gradient counts for one
    orientation only, as in scikit-image, which the authors of the sanity checks used.
    """
    down, right = torch.zeros_like(maps), torch.zeros_like(maps)
    down[:, 1:-1] = maps[:, 2:] - maps[:, :-2]
    right[:, :, 1:-1] = maps[:, :, 2:] - maps[:, :, :-2]
    strength = torch.hypot(down, right)
    turn = torch.atan2(down, right) % math.pi
    bins = (turn * (ORIENTATIONS / math.pi)).long().clamp(max=ORIENTATIONS - 1)
    split = F.one_hot(bins, ORIENTATIONS).permute(0, 3, 1, 2) * strength[:, None]
    cells = F.avg_pool2d(split, cell)
    height, width = (min(BLOCK, edge) for edge in cells.shape[-2:])
    blocks = F.unfold(cells, (height, width))
    limited = _scale_to_unit(blocks).clamp(max=CLIP)
    return _scale_to_unit(limited).flatten(1)


def _scale_to_unit(blocks: Tensor) -> Tensor:
    """Scales each block to length 1.  [b features n]"""
    return blocks / (blocks.square().sum(1, keepdim=True) + EPSILON**2).sqrt()
