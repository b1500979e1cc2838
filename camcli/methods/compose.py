"""What works with every method: reduction, normalisation, enlargement, layer fusion, smoothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import expm1, isfinite
from numbers import Integral

import torch
from torch import Tensor
from torch.nn import functional as F

from camcli.errors import UsageError
from camcli.records import Fusion

# a map whose values differ by less than this share of its maximum is constant but for rounding
SMALLEST_CONTRAST = 1e-6

OTHER_BRIGHTNESS = (0.9, 1.1)

# (1 - 1e-6) ** 2 ** 24 is 5e-8, the rounding of the float32 that maps come in
SQUARINGS = 24


def normalise(maps: Tensor) -> Tensor:
    """ReLU, then min-max; zeros where a map is empty, constant or not finite.  [... h w] -> 0..1"""
    return min_max(maps.relu())


def min_max(maps: Tensor) -> Tensor:
    """Stretches each map to 0..1; zeros where it is constant or not finite.  [... h w] -> 0..1"""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    usable = has_contrast(maps)[..., None, None]
    return torch.where(usable, (maps - low) / (high - low), 0.0)


def signed(maps: Tensor, low: float = 0.0, high: float | None = None) -> Tensor:
    """Keeps the sign: `low` to `high` of what is raised or lowered becomes 0 to 1, and -1.

    [... h w] -> -1..1.  Left out, `high` is each map's largest value of either sign; zeros where a
    map is zero everywhere or not finite.
    """
    size = maps.abs()
    most = size.amax((-2, -1), keepdim=True) if high is None else torch.full_like(maps, high)
    usable = maps.flatten(-2).isfinite().all(-1)[..., None, None] & (most > low)
    share = ((size - low) / (most - low)).clamp(0, 1)
    return torch.where(usable, maps.sign() * share, 0.0)


def scaled(maps: Tensor, low: float, high: float) -> Tensor:
    """ReLU, then `low` to `high` becomes 0 to 1, cut off beyond; zeros where a map is not finite.

    [... h w] -> 0..1.  With one scale for many maps a constant one has its heat.
    """
    usable = maps.flatten(-2).isfinite().all(-1)[..., None, None]
    return torch.where(usable, ((maps.relu() - low) / (high - low)).clamp(0, 1), 0.0)


def has_contrast(maps: Tensor) -> Tensor:
    """Tells whether a map is finite and more than constant but for rounding.  [... h w] -> bool"""
    low, high = maps.amin((-2, -1)), maps.amax((-2, -1))
    span = high - low
    return span.isfinite() & (span > SMALLEST_CONTRAST * torch.maximum(high, -low))


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes maps bilinearly with half-pixel centres.  [... h w] -> [... H W]"""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    resized = F.interpolate(flat, size, mode="bilinear", align_corners=False)
    return resized.reshape(*maps.shape[:-2], *size)


def fuse(
    maps: Sequence[Tensor], size: tuple[int, int], how: Fusion, *, keep_sign: bool = False
) -> Tensor:
    """Fuses layers: each map normalised, enlarged, then combined.  l x [... h w] -> [... H W]

    With `keep_sign` each spans -1 to 1 at most, and only their mean is defined.

    `refine` is RefineCAM, arXiv:2605.14641: the product of the enlarged maps, each of which spans
    0 to 1, as in the authors' code and in grad-cam.
    """
    if keep_sign:
        if how != "mean":
            raise UsageError(
                f"Layer fusion {how} is of maps from 0 to 1, and those of a value have two signs:"
                " give mean or none."
            )
        return torch.stack([enlarge(signed(m), size) for m in maps]).mean(0)
    stack = torch.stack([enlarge(normalise(m), size) for m in maps])
    combine: Mapping[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda s: s.mean(0),
        "max": lambda s: s.amax(0),
        "product": lambda s: s.prod(0),
        # what is enlarged no longer reaches the ends
        "refine": lambda s: min_max(s).prod(0),
    }
    return combine[how](stack)


def channel_sum(weighted: Tensor) -> Tensor:
    """Sums weighted activations over the channels.  [b c h w] -> [b h w]"""
    return weighted.sum(1)


def first_component(maps: Tensor, strength: Tensor) -> Tensor:
    """Projects each place on the first principal component, arXiv:2008.00299.

    [b c h w], strength [b h w] -> [b h w].  The channels are centred (PCA; the paper does not), and
    the sign, which PCA leaves open, is the one in which the projection grows with `strength`.
    """
    b, c, h, w = maps.shape
    rows, finite = centred_places(maps)
    if h * w <= c:
        values, vectors = strongest(rows @ rows.mT)
        projection = vectors * values.clamp(min=0).sqrt()
    else:
        projection = (rows @ strongest(rows.mT @ rows)[1][..., None]).squeeze(-1)
    projection = torch.where(finite, projection, torch.nan)
    return grown_with(strength, projection.reshape(b, h, w)).float()


def strongest(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the largest eigenvalue and its vector, of length 1.  [b n n] -> [b 1], [b n]"""
    if gram.is_cpu:
        values, vectors = torch.linalg.eigh(gram)
        return values[:, -1:], vectors[..., -1]
    # a GPU's eigh takes one after the other: 0.6 ms for 49 places, 1.7 ms for 196 (H200)
    return raised(gram)


def raised(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Does so by squaring until the largest is left, if it is apart by a millionth of itself.

    [b n n], no eigenvalue below zero -> [b 1], [b n]; zeros where there is none above it either.
    """
    tiny, power = torch.finfo(gram.dtype).tiny, gram
    for _ in range(SQUARINGS):
        trace = power.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        power = power / trace.clamp(min=tiny)
        power = power @ power
    # all columns are the vector now, and the longest one has the least rounding
    column = power.diagonal(dim1=1, dim2=2).argmax(1)[:, None, None]
    vector = power.take_along_dim(column, 2)
    vector = vector / vector.norm(dim=1, keepdim=True).clamp(min=tiny)
    value = vector.mT @ gram @ vector
    return value.squeeze(2), vector.squeeze(2)


def centred_places(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Lists each place's channels less their means, zeros for a picture that is not finite.

    [b c h w] -> [b h*w c], and which pictures are finite [b 1]
    """
    # float64: a Gram matrix squares the condition number
    rows = precise(maps).flatten(2).transpose(1, 2)
    finite = rows.isfinite().all(2).all(1, keepdim=True)
    # eigh raises on NaN; one bad picture must not stop its neighbours
    return torch.where(finite[..., None], rows - rows.mean(1, keepdim=True), 0.0), finite


def precise(tensor: Tensor) -> Tensor:
    """Returns the tensor in float64, or in float32 on MPS, which has nothing wider."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def grown_with(strength: Tensor, maps: Tensor) -> Tensor:
    """Turns the maps that fall where the strength grows.  [b h w], [b h w] -> [b h w]"""
    along = (maps * strength.to(maps)).sum((1, 2), keepdim=True)
    return torch.where(along < 0, -maps, maps)


def eigen_smooth(weighted: Tensor) -> Tensor:
    """Reduces weighted activations to their first principal component.  [b c h w] -> [b h w]"""
    return first_component(weighted, channel_sum(weighted))


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

    def smoothed(self, key: Hashable, maps: Tensor) -> Tensor:
        """Takes a frame's map into its key's average, and returns that.  [h w] -> [h w]"""
        if not maps.isfinite().all():
            return maps
        before = self._averages.get(key, maps)
        self._averages[key] = before + self.weight * (maps - before)
        return self._averages[key]


Maps = Mapping[str, Mapping[str, Tensor]]


def augmentation_smoothed(plain: Maps, maps_of: Callable[[Tensor], Maps], inputs: Tensor) -> Maps:
    """Averages the plain raw maps with those of five other views, mapped back.  inputs [b 3 H W]

    The six views are those of grad-cam's `aug_smooth`: mirrored or not, times 0.9, 1 and 1.1.
    """
    straight = [plain, *(maps_of(inputs * factor) for factor in OTHER_BRIGHTNESS)]
    mirrored = [maps_of((inputs * factor).flip(-1)) for factor in (1.0, *OTHER_BRIGHTNESS)]

    def mean(method: str, layer: str) -> Tensor:
        views = [maps[method][layer] for maps in straight]
        views += [maps[method][layer].flip(-1) for maps in mirrored]
        return torch.stack(views).mean(0)

    return {m: {layer: mean(m, layer) for layer in layers} for m, layers in plain.items()}


@dataclass(frozen=True)
class Noise:
    """How many noisy copies, how strong as a share of a picture's range, and drawn from what seed.

    Raises UsageError for no copies, or a strength that is none.
    """

    samples: int
    sigma: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn."""
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


def noise_smoothed(maps_of: Callable[[Tensor], Maps], inputs: Tensor, noise: Noise) -> Maps:
    """Averages the raw maps of noisy copies, SmoothGrad, arXiv:1706.03825.  inputs [b 3 H W]

    The plain picture is none of them, as in the paper.
    """
    first, *others = (maps_of(copy) for copy in noise.copies(inputs))

    def mean(method: str, layer: str) -> Tensor:
        return torch.stack([maps[method][layer] for maps in (first, *others)]).mean(0)

    return {m: {layer: mean(m, layer) for layer in layers} for m, layers in first.items()}
