"""EfficientNet-Lite0 under the names that its published weights have, in torch alone."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from camcli.models.same_padding import Conv2dSame

# TensorFlow's, with which the weights were trained
BATCH_NORM_EPS = 1e-3
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280


class StageConfig(NamedTuple):
    """Blocks of one width; the first of them alone strides."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


# EfficientNet-B0's (arXiv:1905.11946 table 1), without squeeze-and-excitation
STAGES = (
    StageConfig(1, 3, 1, 1, 16),
    StageConfig(2, 3, 2, 6, 24),
    StageConfig(2, 5, 2, 6, 40),
    StageConfig(3, 3, 2, 6, 80),
    StageConfig(3, 5, 1, 6, 112),
    StageConfig(4, 5, 2, 6, 192),
    StageConfig(1, 3, 1, 6, 320),
)


def _make_convolution(
    c_in: int, c_out: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Builds a convolution that keeps the grid at stride 1, and rounds its sides up above."""
    if stride > 1:
        return Conv2dSame(c_in, c_out, kernel_size, stride, groups=groups, bias=False)
    return nn.Conv2d(c_in, c_out, kernel_size, 1, kernel_size // 2, groups=groups, bias=False)


def _make_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class InvertedResidual(nn.Module):
    """An inverted residual block, arXiv:1801.04381 fig. 3.  [b c_in h w] -> [b c_out h/s w/s]"""

    def __init__(self, c_in: int, stage: StageConfig, stride: int) -> None:
        super().__init__()
        inner, c_out = c_in * stage.expansion, stage.channels
        self.expands = inner != c_in
        if self.expands:
            self._expand_conv = _make_convolution(c_in, inner)
            self._bn0 = _make_norm(inner)
            self._relu0 = nn.ReLU6(inplace=True)
        self._depthwise_conv = _make_convolution(
            inner, inner, stage.kernel_size, stride, groups=inner
        )
        self._bn1 = _make_norm(inner)
        self._relu1 = nn.ReLU6(inplace=True)
        self._project_conv = _make_convolution(inner, c_out)
        self._bn2 = _make_norm(c_out)
        self.adds_input = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """Expands, filters each channel, projects, and adds that to an input of the same shape."""
        y: Tensor = self._relu0(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._relu1(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds_input else y


class EfficientNetLite0(nn.Module):
    """Classifies pictures, of 224 pixels in training.  [b 3 H W] -> logits [b k]"""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self._conv_stem = _make_convolution(3, STEM_CHANNELS, 3, stride=2)
        self._bn0 = _make_norm(STEM_CHANNELS)
        self._relu0 = nn.ReLU6(inplace=True)
        self._blocks = nn.Sequential()
        channels = STEM_CHANNELS
        for stage in STAGES:
            for repeat in range(stage.repeats):
                self._blocks.append(
                    InvertedResidual(channels, stage, 1 if repeat else stage.stride)
                )
                channels = stage.channels
        self._conv_head = _make_convolution(channels, HEAD_CHANNELS)
        self._bn1 = _make_norm(HEAD_CHANNELS)
        # what the classifier pools: the default target layer
        self.features = nn.ReLU6(inplace=True)
        self._avg_pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self._fc = nn.Linear(HEAD_CHANNELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the stem, the blocks, the head, pooling and the linear classifier.

        Pictures are normalised by MEAN and STD.  [b 3 H W] -> logits [b k]
        """
        x = self._relu0(self._bn0(self._conv_stem(x)))
        x = self.features(self._bn1(self._conv_head(self._blocks(x))))
        logits: Tensor = self._fc(self._avg_pooling(x))
        return logits
