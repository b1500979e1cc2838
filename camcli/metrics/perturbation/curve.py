"""Curves: the score of a picture while its pixels are hidden, or shown, in the order of a map."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from camcli.metrics.perturbation.pass_plan import Curve, PassPlan


def rank_pixels(maps: Tensor) -> Tensor:
    """Ranks each map's pixels from the highest value on; equal values in reading order.

    [b H W] -> int32 [b H W]
    """
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=maps.device, dtype=torch.int32)
    ranks = torch.empty(order.shape, device=maps.device, dtype=torch.int32)
    return ranks.scatter_(1, order, places.expand_as(ranks)).view(maps.shape)


def count_pixels(pixels: int, steps: int) -> list[int]:
    """Returns how many pixels are altered at each point of a curve, from none to all of them.

    All steps are equally long, as in the code of RISE's authors, but the last one takes what is
    left.
    """
    size = ceil(pixels / steps)
    return [*range(0, pixels, size), pixels]


def plan_curve(maps: Tensor, first: Tensor, last: Tensor, image: Tensor, steps: int) -> PassPlan:
    """Plans the passes of a curve from `first` to `last`, one of which is the picture.

    maps [b H W], first and last [c H W].  The plan's value is the area, arXiv:1806.07421: the sum
    of all scores, the first and the last by half, over the number of steps.  Its trace is the curve
    itself, over the share of the pixels that have become `last`.
    """
    ranks, counts = rank_pixels(maps), count_pixels(maps[0].numel(), steps)
    between = torch.tensor(counts[1:-1], device=maps.device, dtype=torch.int32)
    other = last if first is image else first

    def build(rows: slice) -> Tensor:
        if rows.start == 0:
            rest = slice(0, rows.stop - 1)
            return torch.cat((other[None], build_between(rest)))
        return build_between(slice(rows.start - 1, rows.stop - 1))

    def build_between(rows: slice) -> Tensor:
        row = torch.arange(rows.start, rows.stop, device=maps.device)
        altered = ranks[row // len(between)] < between[row % len(between), None, None]
        return torch.where(altered[:, None], last, first)

    def split(whole: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the scores at the start [], in between [b p] and at the end []."""
        curves = scores[1:].view(len(maps), len(between))
        return (whole, curves, scores[0]) if first is image else (scores[0], curves, whole)

    def conclude(whole: Tensor, scores: Tensor) -> Tensor:
        start, curves, end = split(whole, scores)
        return (curves.sum(1) + (start + end) / 2) / (len(counts) - 1)

    def trace(whole: Tensor, scores: Tensor) -> dict[str, Curve]:
        start, curves, end = split(whole, scores)
        ends = (one.expand(len(maps), 1) for one in (start, end))
        shares = tuple(count / counts[-1] for count in counts)
        return {"": Curve(shares, torch.cat([next(ends), curves, next(ends)], 1))}

    if not len(between):
        return PassPlan(1, lambda _: other[None], conclude, trace)
    return PassPlan(1 + len(maps) * len(between), build, conclude, trace)
