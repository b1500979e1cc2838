"""FullGrad: the whole score as what the input and every bias put into it."""

from collections.abc import Callable

import torch
from torch import Tensor

from camcli.methods.postprocessing import enlarge, min_max, sum_channels
from camcli.records import Detailed, FullGradients
from camcli.registry import method


@method("fullgrad", gives="map", details=("score", "residual"))
def fullgrad(inputs: Tensor, full_gradients: Callable[[int], FullGradients]) -> Detailed:
    """FullGrad, arXiv:1905.00780.  [b 3 H W] -> [b H W], score and residual [b]

    The absolute values of a layer are stretched to 0..1 together, as in the authors' code, so that
    its channels keep their shares (grad-cam stretches each channel, as the formula can be read).
    """
    size = (inputs.shape[-2], inputs.shape[-1])
    pictures = [_sum_terms(full_gradients(row), size) for row in range(len(inputs))]
    saliency, score, residual = map(torch.stack, zip(*pictures, strict=True))
    return Detailed(saliency, {"score": score, "residual": residual})


def _sum_terms(given: FullGradients, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    terms = (given.input_term, *given.bias_terms)
    saliency = torch.stack([_enlarge(term, size) for term in terms]).sum(0)
    return saliency, given.score, given.residual


def _enlarge(term: Tensor, size: tuple[int, int]) -> Tensor:
    stretched = min_max(term.abs().flatten(1)).view_as(term)
    # the sum is enlarged, which for bilinear enlargement is the sum of the enlarged
    enlarged = enlarge(sum_channels(stretched[None]), size)[0]
    return torch.where(term.isfinite().all(), enlarged, torch.nan)
