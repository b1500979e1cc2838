"""Small networks whose heatmaps can be worked out by hand."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class Pooled(nn.Module):
    """Two channels, x and 2x, then average pooling and one linear layer.

    Logit 0 is 3 * mean(x) - mean(2x), logit 1 is mean(x) + 2 * mean(2x).
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        self.fc = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
            self.fc.weight.copy_(torch.tensor([[3.0, -1.0], [1.0, 2.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class Staged(nn.Module):
    """A convolutional network of three stages with random weights, in-place ReLUs and BatchNorm."""

    def __init__(self, num_classes: int = 5, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.stem = _stage(3, 8)
            self.middle = _stage(8, 12)
            self.last = _stage(12, 16)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(torch.relu_(self.middle(self.stem(x))))
        return self.fc(self.pool(torch.relu_(x)).flatten(1))


def _stage(c_in: int, c_out: int) -> nn.Sequential:
    norm = nn.BatchNorm2d(c_out)
    nn.init.normal_(norm.bias, std=0.1)
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, 2, 1), norm)


class Straight(Staged):
    """Nothing lies between its last stage and the pooling, as CAM needs it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.last(self.middle(self.stem(x)))).flatten(1))


class Attending(Staged):
    """The cells of its last stage are tokens, which two blocks and a class token attend to."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.token = nn.Parameter(torch.randn(1, 1, 16))
            self.blocks = nn.Sequential(Block(16, num_heads=2), Block(16, num_heads=2))
            self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.middle(self.stem(x))).flatten(2).mT
        x = self.blocks(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        return self.fc(self.norm(x)[:, 0])


NEEDS: dict[str, type[Staged]] = {
    "cam": Straight,
    **dict.fromkeys(("rollout", "genericattention", "gradattention", "legrad"), Attending),
}


def network_for(method: str) -> Staged:
    """Returns a network on which the method is defined: `Staged` has a ReLU before its pooling."""
    return NEEDS.get(method, Staged)()


class Counting(Staged):
    """It counts pictures by the batch it was given, so its tail cannot run on a chunk."""

    def forward(self, x: Tensor) -> Tensor:
        pictures = len(x)
        x = self.last(self.middle(self.stem(x)))
        return self.fc(x.reshape(pictures, 16, -1).mean(2))


def noise(b: int = 2, c: int = 3, size: tuple[int, int] = (48, 64), seed: int = 1) -> Tensor:
    """Seeded normal noise.  -> [b c H W]"""
    return torch.randn(b, c, *size, generator=torch.Generator().manual_seed(seed))
