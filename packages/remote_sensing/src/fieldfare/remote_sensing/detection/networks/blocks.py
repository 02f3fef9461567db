# SPDX-License-Identifier: Apache-2.0
"""The parts of LeYOLO: convolutions with batch norm, inverted bottlenecks, SPPF.

Source: LeYOLO, Hollard et al. 2024 (arXiv 2406.14239); inverted bottlenecks: MobileNetV2, Sandler
et al. 2018 (arXiv 1801.04381). Written from descriptions; tensors bear the published names.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

EPS, MOMENTUM = 1e-3, 0.03
"""Of every batch norm."""

POOL = 5
"""Side of SPPF's windows."""


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """With LeYOLO's constants."""
    return nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM)


def cbs(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution with bias, batch norm, SiLU: (B, inputs, H, W) to (B, outputs, H/s, W/s)."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(
        OrderedDict(c=convolution, bn=batch_norm(outputs), act=nn.SiLU(inplace=True))
    )


def plain_cbs(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    """The same without bias, as the head and SPPF have it."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(
        OrderedDict(conv=convolution, bn=batch_norm(outputs), act=nn.SiLU(inplace=True))
    )


class InvertedBottleneck(nn.Module):
    """Widen, filter each channel, narrow; added to the input where the shapes agree.

    Args:
        middle: channels in between; None leaves the widening out.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, middle: int | None, stride: int = 1
    ) -> None:
        super().__init__()
        width = middle or inputs
        widen = [] if middle is None else [cbs(inputs, middle, 1)]
        self.layers = nn.Sequential(
            *widen,
            cbs(width, width, kernel, stride, groups=width),
            nn.Conv2d(width, outputs, 1),
            batch_norm(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class SPPF(nn.Module):
    """Maxima over windows of 5, 9 and 13 cells beside the features themselves.

    Source: spatial pyramid pooling, He et al. 2014 (arXiv 1406.4729), by chained pools.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = plain_cbs(channels, channels // 2, 1)
        self.cv2 = plain_cbs(channels // 2 * 4, channels, 1)
        self.pool = nn.MaxPool2d(POOL, stride=1, padding=POOL // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), both ways."""
        found = [self.cv1(x)]
        for _ in range(3):
            found.append(self.pool(found[-1]))
        y: Tensor = self.cv2(torch.cat(found, 1))
        return y
