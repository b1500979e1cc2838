"""Methods that read a transformer's attention [b heads n n], block by block.

Only the rows off which the score is read are carried from the last block to the first: the same
product as the papers', with n instead of n^2 numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.registry import method

HEAD_FUSIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda heads: heads.mean(1),
    "max": lambda heads: heads.amax(1),
    "min": lambda heads: heads.amin(1),
}


@method("rollout", gives="map")
def rollout(
    attention: Sequence[Tensor],
    readout_weights: Tensor,
    token_grid: Tensor,
    *,
    head_fusion: str = "mean",
    discard_ratio: float = 0.0,
) -> Tensor:
    """Attention rollout, arXiv:2005.00928.  l x [b heads n n], [n], [h w] -> [b h w]"""
    if head_fusion not in HEAD_FUSIONS:
        raise UsageError(f"head_fusion is {', '.join(HEAD_FUSIONS)}, not {head_fusion!r}.")
    if not 0 <= discard_ratio < 1:
        raise UsageError(f"discard_ratio is from 0 to below 1, not {discard_ratio}.")
    row = readout_weights.expand(len(attention[0]), -1)
    for block in reversed(attention):
        fused = _keep_strongest(HEAD_FUSIONS[head_fusion](block), discard_ratio)
        # 0.5 A + 0.5 I, whose rows sum to one however heads are fused
        mixed = fused + torch.eye(fused.shape[-1], device=fused.device)
        row = _multiply_row(row, mixed / mixed.sum(-1, keepdim=True))
    return row[:, token_grid]


@method("genericattention", gives="map")
def generic_attention(
    attention: Sequence[Tensor],
    attention_gradients: Sequence[Tensor],
    readout_weights: Tensor,
    token_grid: Tensor,
) -> Tensor:
    """Generic attention explainability, arXiv:2103.15679.  l x [b heads n n] twice -> [b h w]

    R less the identity that it begins with: beside that 1, small relevance would be rounded away.
    """
    row = torch.zeros_like(attention[0][:, 0, 0])
    for block, gradients in zip(reversed(attention), reversed(attention_gradients), strict=True):
        row = row + _multiply_row(readout_weights + row, _average_relevance(block, gradients))
    return row[:, token_grid]


@method("gradattention", gives="map")
def grad_attention(
    attention: Sequence[Tensor],
    attention_gradients: Sequence[Tensor],
    readout_weights: Tensor,
    token_grid: Tensor,
) -> Tensor:
    """Grad-weighted attention, arXiv:2103.15679: its last block.  l x [b heads n n] -> [b h w]"""
    row = readout_weights.expand(len(attention[-1]), -1)
    return _multiply_row(row, _average_relevance(attention[-1], attention_gradients[-1]))[
        :, token_grid
    ]


@method("legrad", gives="map")
def legrad(block_gradients: Sequence[Tensor], token_grid: Tensor) -> Tensor:
    """LeGrad, arXiv:2404.03214.  l x [b heads q n] -> [b h w]"""
    blocks = torch.stack([gradients.relu().mean((1, 2)) for gradients in block_gradients])
    return blocks.mean(0)[:, token_grid]


def _average_relevance(attention: Tensor, gradients: Tensor) -> Tensor:
    """Averages over heads what attention adds to the score.  [b heads n n] -> [b n n]"""
    return (gradients * attention).relu().mean(1)


def _multiply_row(row: Tensor, matrix: Tensor) -> Tensor:
    # no matrix product, which autocast would round to half precision
    return (row[:, :, None] * matrix).sum(1)


def _keep_strongest(fused: Tensor, discard_ratio: float) -> Tensor:
    """Leaves out a share of each picture's attention, the weakest.  [b n n]"""
    flat = fused.flatten(1)
    weakest = flat.topk(int(discard_ratio * flat.shape[1]), largest=False).indices
    return flat.scatter(1, weakest, 0.0).view_as(fused)
