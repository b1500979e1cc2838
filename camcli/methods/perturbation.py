"""Methods that alter the input, or the activations, and watch the score."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from camcli.errors import UsageError
from camcli.methods.postprocessing import enlarge, has_contrast, min_max
from camcli.methods.principal_component import to_float64
from camcli.registry import method

# what builds the altered rows of a slice; a picture's scores [n] when n rows are altered so
Altered = Callable[[slice], Tensor]
Score = Callable[[Altered, int, int], Tensor]
# makes a sample of the masks [n H W], each the sample that its number [n] says
Vary = Callable[[Tensor, Tensor], Tensor]

SMALLEST_SCORE = 1e-12
# RISE's masks are built again when the scores are there: all of them at once take much memory
MASKS_AT_ONCE = 32


@method("ablationcam", gives="weighted activations")
def ablationcam(activations: Tensor, rescore: Score, *, max_channels: int = 0) -> Tensor:
    """Ablation-CAM, 10.1109/WACV45572.2020.9093360.  [b c h w] -> weighted activations [b c h w]

    A channel's weight is the share of the score that goes when the channel is zero.  It is divided
    by the score's magnitude: the paper divides by the score, which turns the map over where that
    is negative.
    """
    _check_at_least(0, max_channels=max_channels)
    weights = activations.new_zeros(activations.shape[:2])
    for owner, maps in enumerate(activations):
        chosen = _pick_strongest(maps, max_channels)
        live = chosen[maps[chosen].flatten(1).any(1)]
        # the whole score comes from the same passes, so that their rounding is the same
        whole, *_ = ablated_scores = rescore(
            partial(_zero_channels, maps, live), 1 + len(live), owner
        )
        weights[owner, live] = (whole - ablated_scores[1:]) / whole.abs().clamp(min=SMALLEST_SCORE)
    return weights[:, :, None, None] * activations


def _zero_channels(maps: Tensor, channels: Tensor, rows: slice) -> Tensor:
    """Sets one of the channels to zero in each row, and none in row 0.  [c h w] -> [n c h w]"""
    c = len(maps)
    zeroed = torch.cat((channels.new_tensor([c]), channels))[rows]
    return maps.masked_fill(F.one_hot(zeroed, c + 1)[:, :c, None, None].bool(), 0)


@method("scorecam", gives="weighted activations")
def scorecam(activations: Tensor, inputs: Tensor, score: Score, *, max_channels: int = 0) -> Tensor:
    """Score-CAM, arXiv:1910.01279.  [b c h w], [b 3 H W] -> weighted activations [b c h w]

    The score is the target's own, by default the logit, as in the paper's algorithm.
    """
    return _weight_by_score(activations, inputs, score, max_channels)


@method("sscam", gives="weighted activations")
def sscam(
    activations: Tensor,
    inputs: Tensor,
    score: Score,
    *,
    samples: int = 10,
    sigma: float = 2.0,
    seed: int = 0,
    max_channels: int = 0,
) -> Tensor:
    """SS-CAM, arXiv:2006.14255.  [b c h w], [b 3 H W] -> weighted activations [b c h w]

    The noise is added to the mask, the first of the paper's two places and torchcam's.
    """
    _check_at_least(1, samples=samples)
    draw = torch.Generator().manual_seed(seed)
    # the same noise for all pictures, for a map must not depend on its neighbours in the batch,
    # and for all channels, whose scores then differ by their masks alone
    fields = sigma * torch.randn(samples, *inputs.shape[-2:], generator=draw).to(inputs.device)

    def add_noise(masks: Tensor, sample: Tensor) -> Tensor:
        return masks + fields[sample]

    return _weight_by_score(activations, inputs, score, max_channels, samples, add_noise)


@method("iscam", gives="weighted activations")
def iscam(
    activations: Tensor, inputs: Tensor, score: Score, *, samples: int = 10, max_channels: int = 0
) -> Tensor:
    """IS-CAM, arXiv:2010.03023.  [b c h w], [b 3 H W] -> weighted activations [b c h w]

    Step i adds i/samples of the mask to that of the step before, as in torchcam and other code
    written from the paper: the masks grow beyond 1.
    """
    _check_at_least(1, samples=samples)
    shares = torch.arange(1, samples + 1, device=inputs.device).cumsum(0) / samples

    def scale_masks(masks: Tensor, sample: Tensor) -> Tensor:
        return masks * shares[sample, None, None]

    return _weight_by_score(activations, inputs, score, max_channels, samples, scale_masks)


def _pass_through(masks: Tensor, _: Tensor) -> Tensor:
    return masks


def _weight_by_score(
    activations: Tensor,
    inputs: Tensor,
    score: Score,
    max_channels: int,
    samples: int = 1,
    vary: Vary = _pass_through,
) -> Tensor:
    """Weights channels by the score of the input that is masked with them, arXiv:1910.01279.

    No blank input is scored, though the papers take the increase over its score: the softmax over
    the channels does not see what is subtracted from all of them.  A constant channel is no mask;
    it gets no pass and no weight.
    """
    _check_at_least(0, max_channels=max_channels)
    weights = activations.new_zeros(activations.shape[:2])
    for owner, (maps, image) in enumerate(zip(activations, inputs, strict=True)):
        chosen = _pick_strongest(maps, max_channels)
        live = chosen[has_contrast(maps[chosen])]
        if len(live):
            masked = partial(_mask_image, maps[live], image, samples, vary)
            scores = score(masked, samples * len(live), owner).view(-1, samples)
            weights[owner, live] = scores.mean(1).softmax(0)
    return weights[:, :, None, None] * activations


def _mask_image(maps: Tensor, image: Tensor, samples: int, vary: Vary, rows: slice) -> Tensor:
    """Masks an image with all samples of a channel, then of the next.  [c h w] -> [n 3 H W]"""
    row = torch.arange(rows.start, rows.stop, device=maps.device)
    size = (image.shape[-2], image.shape[-1])
    # each channel's mask is made once for its samples
    first, last = rows.start // samples, (rows.stop - 1) // samples
    masks = min_max(enlarge(maps[first : last + 1], size))[row // samples - first]
    return (vary(masks, row % samples)[:, None] * image).to(image.dtype)


def _pick_strongest(maps: Tensor, max_channels: int) -> Tensor:
    """Returns the channels with the highest means, in their order; 0 is all.  [c h w] -> [k]"""
    c = len(maps)
    return maps.mean((1, 2)).topk(min(max_channels, c) or c).indices.sort().values


@method("rise", gives="map")
def rise(
    inputs: Tensor,
    score: Score,
    *,
    masks: int = 4000,
    cells: int = 7,
    probability: float = 0.5,
    seed: int = 0,
) -> Tensor:
    """RISE, arXiv:1806.07421, about the mean score.  [b 3 H W] -> [b H W]

    The paper's score is a probability.  A logit may be negative, and its map then be so everywhere:
    the mean score is subtracted, which takes a constant off the map, and noise with it.
    """
    _check_at_least(1, masks=masks, cells=cells)
    if not 0 < probability < 1:
        raise UsageError(f"Option probability is between 0 and 1, not {probability}.")
    built = _draw_masks(inputs, masks, cells, probability, seed)

    def mask_images(image: Tensor, rows: slice) -> Tensor:
        return (built(rows)[:, None] * image).to(image.dtype)

    scores = [score(partial(mask_images, image), masks, i) for i, image in enumerate(inputs)]
    # the first one goes first: the rounded mean of equal scores is not always theirs
    apart = [picture_scores - picture_scores[0] for picture_scores in scores]
    better = [picture_scores - picture_scores.mean() for picture_scores in apart]
    maps = torch.zeros(len(inputs), *inputs.shape[-2:], device=inputs.device)
    for start in range(0, masks, MASKS_AT_ONCE):
        rows = slice(start, min(start + MASKS_AT_ONCE, masks))
        seen = built(rows)
        for row, share in zip(maps, better, strict=True):
            row += (share[rows, None, None] * seen).sum(0)
    return maps / (masks * probability)


def _draw_masks(
    inputs: Tensor, count: int, cells: int, probability: float, seed: int
) -> Callable[[slice], Tensor]:
    """Draws RISE's masks, and returns what builds those of a slice.  -> [n H W]"""
    draw = torch.Generator().manual_seed(seed)
    height, width = inputs.shape[-2:]
    # one cell more than the picture has, so that the grid can be shifted by up to a cell
    high, wide = ceil(height / cells), ceil(width / cells)
    open_ = torch.rand(count, cells, cells, generator=draw) < probability
    down = torch.randint(high, (count,), generator=draw)[:, None] + torch.arange(height)
    across = torch.randint(wide, (count,), generator=draw)[:, None] + torch.arange(width)
    rows_of, columns_of = _compute_cell_shares(cells, high), _compute_cell_shares(cells, wide)

    def build(rows: slice) -> Tensor:
        # only what is seen of the enlarged grid: half the work of cutting it out of the whole
        parts = (rows_of[down[rows]], open_[rows].float(), columns_of[across[rows]].mT)
        # precise, for autocast would take the products in half precision
        above, grids, left = (to_float64(part.to(inputs.device)) for part in parts)
        return (above @ grids @ left).float()

    return build


def _compute_cell_shares(cells: int, pixels: int) -> Tensor:
    """Computes each cell's share in each pixel of an enlarged side.  -> [pixels*(cells+1) cells]"""
    return enlarge(torch.eye(cells), (pixels * (cells + 1), cells))


@method("occlusion", gives="map")
def occlusion(inputs: Tensor, score: Score, *, window: int = 32, stride: int = 16) -> Tensor:
    """Occlusion, arXiv:1311.2901: the drop behind a grey square.  [b 3 H W] -> [b h w]

    The square is `window` pixels wide and zero, the mean colour where inputs are normalised.  Its
    centres are the map's, a cell for about every `stride` pixels.
    """
    _check_at_least(1, window=window, stride=stride)
    height, width = (_cover(side, window, stride) for side in inputs.shape[-2:])
    down, across = height.to(inputs.device), width.to(inputs.device)
    h, w = len(down), len(across)

    def cover_image(image: Tensor, rows: slice) -> Tensor:
        # row 0 is the whole picture
        place = torch.arange(rows.start, rows.stop, device=image.device) - 1
        hidden = down[place // w, :, None] & across[place % w, None, :]
        hidden &= place[:, None, None] >= 0
        return torch.where(hidden[:, None], 0, image)

    scores = [score(partial(cover_image, image), 1 + h * w, i) for i, image in enumerate(inputs)]
    return torch.stack([(one[0] - one[1:]).view(h, w) for one in scores])


def _cover(length: int, window: int, stride: int) -> Tensor:
    """Tells which pixels the window covers at each place along a side.  -> bool [places length]"""
    places = ceil(length / stride)
    centres = (torch.arange(places) + 0.5) * (length / places)
    first = (centres - window / 2 + 0.5).floor()[:, None]
    pixels = torch.arange(length)
    return (first <= pixels) & (pixels < first + window)


def _check_at_least(least: int, **options: int) -> None:
    for name, value in options.items():
        if value < least:
            raise UsageError(f"Option {name} is {least} or more, not {value}.")
