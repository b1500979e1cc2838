"""Smoothing that works with every method: over noisy or augmented copies, and over frames."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from math import expm1, isfinite
from numbers import Integral

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.methods.postprocessing import Maps

OTHER_BRIGHTNESS = (0.9, 1.1)


class FrameSmoother:
    """Smooths the raw maps of a video's frames, one after the other, by exponential averages.

    `s = s + (1 - exp(-1 / frames)) * (map - s)`, beginning with the first map: what a map adds has
    faded to 1/e after as many frames.  Each key, such as (method, layers, category), has an average
    of its own.  A map that is not finite is passed on, and enters none.  Raises UsageError.
    """

    def __init__(self, frames: float) -> None:
        if not (isfinite(frames) and frames > 0):
            raise UsageError(f"Frames are smoothed over a number of them above 0, not {frames}.")
        self.weight = -expm1(-1 / frames)
        self._averages: dict[Hashable, Tensor] = {}

    def smooth(self, key: Hashable, maps: Tensor) -> Tensor:
        """Takes a frame's map into its key's average, and returns that.  [h w] -> [h w]"""
        if not maps.isfinite().all():
            return maps
        before = self._averages.get(key, maps)
        self._averages[key] = before + self.weight * (maps - before)
        return self._averages[key]


def smooth_by_augmentation(plain: Maps, maps_of: Callable[[Tensor], Maps], inputs: Tensor) -> Maps:
    """Averages the plain raw maps with those of five other views, mapped back.  inputs [b 3 H W]

    The six views are those of grad-cam's `aug_smooth`: mirrored or not, times 0.9, 1 and 1.1.
    """
    straight = [plain, *(maps_of(inputs * factor) for factor in OTHER_BRIGHTNESS)]
    mirrored = [maps_of((inputs * factor).flip(-1)) for factor in (1.0, *OTHER_BRIGHTNESS)]

    def average(method: str, layer: str) -> Tensor:
        views = [maps[method][layer] for maps in straight]
        views += [maps[method][layer].flip(-1) for maps in mirrored]
        return torch.stack(views).mean(0)

    return {m: {layer: average(m, layer) for layer in layers} for m, layers in plain.items()}


@dataclass(frozen=True)
class Noise:
    """How many noisy copies, how strong as a share of a picture's range, and drawn from what seed.

    Raises UsageError for no copies, or a strength that is none.
    """

    samples: int
    sigma: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises for a number of copies or a strength that cannot be drawn."""
        whole = isinstance(self.samples, Integral) and self.samples >= 1
        if not (whole and isfinite(self.sigma) and self.sigma >= 0):
            raise UsageError(
                "Noise takes samples of 1 or more and a sigma of 0 or more, not "
                f"{self.samples!r} and {self.sigma!r}."
            )

    def copies(self, inputs: Tensor) -> Iterator[Tensor]:
        """Gives the pictures with Gaussian noise, once for each sample.  [b 3 H W] -> the same"""
        draw = torch.Generator().manual_seed(self.seed)
        deviation = self.sigma * (inputs.amax((1, 2, 3)) - inputs.amin((1, 2, 3)))
        for _ in range(self.samples):
            # one draw for all pictures, so that a map does not depend on its neighbours
            drawn = torch.randn(inputs.shape[1:], generator=draw).to(inputs)
            yield inputs + deviation[:, None, None, None] * drawn


def smooth_by_noise(maps_of: Callable[[Tensor], Maps], inputs: Tensor, noise: Noise) -> Maps:
    """Averages the raw maps of noisy copies, SmoothGrad, arXiv:1706.03825.  inputs [b 3 H W]

    The plain picture is none of them, as in the paper.
    """
    first, *others = (maps_of(copy) for copy in noise.copies(inputs))

    def average(method: str, layer: str) -> Tensor:
        return torch.stack([maps[method][layer] for maps in (first, *others)]).mean(0)

    return {m: {layer: average(m, layer) for layer in layers} for m, layers in first.items()}
