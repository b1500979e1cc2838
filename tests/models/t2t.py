"""T2T-ViT, written from its paper (arXiv:2101.11986): a model that no library has.

The tests load it as a user would: `camviz img.jpg -m tests/models/t2t.py:t2t_vit_14`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOKEN_WIDTH = 64  # of the tokens-to-token module, section 3.3


class Attention(nn.Module):
    """Multi-head self-attention.  [b n c] -> [b n width]"""

    def __init__(self, c: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(c, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        # where the width changes, tokens cannot be added to what was mixed, but the values can
        return mixed if mixed.shape == tokens.shape else mixed + v.transpose(1, 2).flatten(2)


def mlp(c: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(c, hidden), nn.GELU(), nn.Linear(hidden, c))


class TokenTransformer(nn.Module):
    """The transformer layer in front of a re-structurization, eq. 1.  [b n c] -> [b n 64]"""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c)
        self.attn = Attention(c, TOKEN_WIDTH, heads=1)
        self.norm2 = nn.LayerNorm(TOKEN_WIDTH)
        self.mlp = mlp(TOKEN_WIDTH, TOKEN_WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class SoftSplit(nn.Unfold):
    """Patches that overlap become tokens, eq. 3.  [b c h w] -> [b n c*k*k]"""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps).transpose(1, 2)


class TokensToToken(nn.Module):
    """Soft splits with transformers between them, section 3.1.  [b 3 H W] -> [b H/16*W/16 c]"""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.split1 = SoftSplit(7, stride=4, padding=2)
        self.transformer1 = TokenTransformer(3 * 49)
        self.split2 = SoftSplit(3, stride=2, padding=1)
        self.transformer2 = TokenTransformer(TOKEN_WIDTH * 9)
        self.split3 = SoftSplit(3, stride=2, padding=1)
        self.project = nn.Linear(TOKEN_WIDTH * 9, c)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        tokens = self.transformer1(self.split1(images))
        tokens = self.split2(restructure(tokens, (height // 4, width // 4)))
        tokens = self.transformer2(tokens)
        tokens = self.split3(restructure(tokens, (height // 8, width // 8)))
        return self.project(tokens)


def restructure(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Makes an image of tokens again, eq. 2.  [b h*w c] -> [b c h w]"""
    return tokens.transpose(1, 2).unflatten(2, size)


class Block(nn.Module):
    """A transformer block of the deep-narrow backbone, section 3.2.  [b n c] -> [b n c]"""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c)
        self.attn = Attention(c, c, heads)
        self.norm2 = nn.LayerNorm(c)
        self.mlp = mlp(c, 3 * c)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


def sinusoids(n: int, c: int) -> Tensor:
    """The position embedding, arXiv:1706.03762 section 3.5.  -> [n c]"""
    angles = torch.arange(n)[:, None] / 10000 ** (torch.arange(0, c, 2) / c)
    return torch.stack((angles.sin(), angles.cos()), 2).flatten(1)


class T2TViT(nn.Module):
    """[b 3 H W] -> logits [b num_classes]; H and W are multiples of 16."""

    def __init__(self, c: int, depth: int, heads: int, num_classes: int) -> None:
        super().__init__()
        self.tokens_to_token = TokensToToken(c)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, c))
        self.blocks = nn.ModuleList([Block(c, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(c)
        self.head = nn.Linear(c, num_classes) if num_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.tokens_to_token(images)
        tokens = torch.cat((self.cls_token.expand(len(tokens), -1, -1), tokens), 1)
        tokens = tokens + sinusoids(*tokens.shape[1:]).to(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])


def t2t_vit_14(num_classes: int = 1000, depth: int = 14) -> T2TViT:
    """T2T-ViT-14, table 2: 21.5 million parameters."""
    return T2TViT(c=384, depth=depth, heads=6, num_classes=num_classes)
