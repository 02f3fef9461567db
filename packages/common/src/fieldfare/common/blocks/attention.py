# SPDX-License-Identifier: Apache-2.0
"""Channel attention in any number of dimensions: squeeze-excite and ECA."""

import math

import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Channels scaled by a two-layer network of their means; (B, C, *size) in and out.

    Args:
        channels: C.
        reduction: the hidden layer has C / reduction units, at least 1.
        hidden: units of the hidden layer, in place of reduction.
        hard: clip a line in place of the sigmoid, as MobileNetV3 (arXiv 1905.02244) does.

    Source: Hu et al. 2018, arXiv 1709.01507.
    """

    def __init__(
        self, channels: int, reduction: int = 16, *, hidden: int | None = None, hard: bool = False
    ) -> None:
        super().__init__()
        hidden = max(1, channels // reduction) if hidden is None else hidden
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.ReLU(),
            nn.Linear(hidden, channels),
            nn.Hardsigmoid() if hard else nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> the same shape."""
        return x * _spread(self.layers(x.flatten(2).mean(dim=2)), x)


class EfficientChannelAttention(nn.Module):
    """Channels scaled by a 1-D convolution over their means; (B, C, *size) in and out.

    Args:
        channels: C.
        kernel: odd width of the convolution; by `eca_kernel` when None.

    Source: Wang et al. 2020, ECA-Net, arXiv 1910.03151.
    """

    def __init__(self, channels: int, kernel: int | None = None) -> None:
        super().__init__()
        kernel = eca_kernel(channels) if kernel is None else kernel
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and at least 1, got {kernel}")
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> the same shape."""
        means = x.flatten(2).mean(dim=2)
        return x * _spread(torch.sigmoid(self.conv(means[:, None])[:, 0]), x)


def eca_kernel(channels: int, gamma: float = 2, offset: float = 1) -> int:
    """Width of ECA's convolution: |log2(C) / gamma + offset / gamma|, the next odd number.

    Source: arXiv 1910.03151, eq. 12. The published networks' fixed 3, 5, 5, 7 differ from it.
    """
    width = int(abs((math.log2(channels) + offset) / gamma))
    return max(3, width if width % 2 else width + 1)


def _spread(scale: Tensor, x: Tensor) -> Tensor:
    """(B, C) as (B, C, 1, ...) of as many axes as x."""
    return scale.view(*scale.shape, *[1] * (x.ndim - 2))
