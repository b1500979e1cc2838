"""The embedded classifier's network: a narrow dilated ResNet-18, in torch alone to load at once."""

from torch import Tensor, nn

CHANNELS = (32, 64, 128, 256)
STEM_CHANNELS = 64
OUTPUT_STRIDE = 8


def _convolution(c_in: int, c_out: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Builds a 3x3 convolution that keeps the grid's size at stride 1, whatever its dilation."""
    return nn.Conv2d(c_in, c_out, 3, stride, padding=dilation, dilation=dilation, bias=False)


class Block(nn.Module):
    """A basic residual block, arXiv:1512.03385 fig. 2.  [b c_in h w] -> [b c_out h/s w/s]"""

    def __init__(self, c_in: int, c_out: int, stride: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = _convolution(c_in, c_out, stride, dilations[0])
        self.bn1 = nn.BatchNorm2d(c_out)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = _convolution(c_out, c_out, dilation=dilations[1])
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample: nn.Module = nn.Identity()
        if c_in != c_out or stride > 1:
            shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(c_out))
        self.act2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Adds what two convolutions find to their input."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + self.downsample(x)
        activated: Tensor = self.act2(y)
        return activated


class Network(nn.Module):
    """Classifies small pictures on a grid of stride 8.  [b 3 H W] -> logits [b k]

    Stages that would have gone below stride 8 are dilated instead (arXiv:1705.09914), so that an
    88-pixel picture still gives an 11x11 heatmap.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        c_in, stride, dilation = STEM_CHANNELS, 4, 1
        for number, c_out in enumerate(CHANNELS, start=1):
            wanted = 1 if number == 1 else 2
            step = wanted if stride * wanted <= OUTPUT_STRIDE else 1
            # the first convolution of a dilated stage still sees the grid of the stage before it
            before, dilation = dilation, dilation * wanted // step
            stride *= step
            first = Block(c_in, c_out, step, (before, dilation))
            second = Block(c_out, c_out, 1, (dilation, dilation))
            self.add_module(f"layer{number}", nn.Sequential(first, second))
            c_in = c_out
        self.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the stem, the four stages, pooling and the linear head."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        for number in range(1, len(CHANNELS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(self.global_pool(x))
        return logits
