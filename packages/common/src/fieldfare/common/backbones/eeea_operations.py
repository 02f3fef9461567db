# SPDX-License-Identifier: Apache-2.0
"""Operations inside the cells of EEEA-Net (arXiv 2108.06156); convolutions have no bias."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
) -> nn.Conv2d:
    """A convolution whose result has ceil(size / stride) positions, for odd kernels."""
    pad = dilation * (kernel // 2)
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride, pad, dilation, groups=groups, bias=False
    )


def _separated(channels: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise and 1x1 convolution, norm."""
    return [
        nn.ReLU(),
        conv(channels, channels, kernel, stride, groups=channels, dilation=dilation),
        conv(channels, channels, 1),
        nn.BatchNorm2d(channels),
    ]


class ConvNorm(nn.Module):
    """ReLU (some), convolution without bias, batch norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.relu = relu
        self.conv = conv(in_channels, out_channels, kernel, stride, groups=groups)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        found: Tensor = self.norm(self.conv(F.relu(x) if self.relu else x))
        return found


class FactorizedReduce(nn.Module):
    """Half the size: ReLU, a 1x1 convolution of the even and one of the odd positions, norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels // 2, 1, 2)
        self.conv2 = conv(in_channels, out_channels - out_channels // 2, 1, 2)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / 2), ceil(W / 2)); zeros follow an odd size."""
        x = F.relu(x)
        shifted = F.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))
        found: Tensor = self.norm(torch.cat((self.conv1(x), self.conv2(shifted)), dim=1))
        return found


class Inverted(nn.Sequential):
    """Inverted residual of expansion 1: its input is added at stride 1."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(
            ConvNorm(channels, channels),
            ConvNorm(channels, channels, kernel, stride, groups=channels),
            ConvNorm(channels, channels, relu=False),
        )
        self.residual = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
        found: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + found if self.residual else found


class NonLocal(nn.Module):
    """Every position adds all others by their likeness, filtered by channel; input added.

    As published, the sum over positions is divided by the height and multiplied by the width. It
    grows with the third power of its input: without trained statistics the norm cannot hold it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels, 3, groups=channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        height, width = x.shape[2:]
        maps = x.flatten(2)
        mixed = (maps @ maps.transpose(1, 2)) @ maps / height * width
        found: Tensor = x + self.norm(self.conv(mixed.view_as(x)))
        return found


class SqueezeExcite(nn.Sequential):
    """Channels scaled by a two-layer network of their means, without biases."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        hidden = channels // reduction
        super().__init__(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        scale: Tensor = super().forward(x.mean((2, 3)))  # type: ignore[no-untyped-call]
        return x * scale[:, :, None, None]


def operation(kind: str, channels: int, stride: int) -> nn.Module:
    """By its kind: max, avg (pooling, no norm), skip, or sep, dil, inv with their kernel."""
    if kind == "skip":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    if kind == "max":
        return nn.MaxPool2d(3, stride, 1)
    if kind == "avg":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    kernel = int(kind[3:])
    if kind[:3] == "sep":
        once = partial(_separated, channels, kernel)
        return nn.Sequential(*once(stride), *once(1))
    if kind[:3] == "dil":
        return nn.Sequential(*_separated(channels, kernel, stride, dilation=2))
    return Inverted(channels, kernel, stride)
