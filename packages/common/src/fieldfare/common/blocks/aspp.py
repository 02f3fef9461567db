# SPDX-License-Identifier: Apache-2.0
"""Atrous spatial pyramid pooling in any number of dimensions.

Chen et al. 2017, DeepLabv3 (arXiv 1706.05587): parallel convolutions of several rates and the
image's mean, joined and projected.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .nd import adaptive_avg_pool, convolution, normalisation


class ASPP(nn.Module):
    """(B, channels, *size) -> (B, out_channels, *size).

    Args:
        channels, out_channels: of input and output.
        rates: dilation of each 3x3 branch; a rate of at least the feature's side sees nothing but
            its own pixel and zeros, so choose them below it.
        ndim: 1, 2 or 3.
        norm: see `normalisation`.
        dropout: before the output.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        *,
        ndim: int = 2,
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()

        def branch(kernel: int, rate: int, width: int) -> nn.Sequential:
            padding = rate * (kernel // 2)
            return nn.Sequential(
                convolution(
                    ndim, width, out_channels, kernel, padding=padding, dilation=rate, bias=False
                ),
                normalisation(norm, ndim, out_channels),
                nn.ReLU(),
            )

        self.branches = nn.ModuleList(
            [branch(1, 1, channels), *[branch(3, rate, channels) for rate in rates]]
        )
        # One value a channel leaves a batch norm nothing to go by with a single image: a bias does.
        self.image = nn.Sequential(
            adaptive_avg_pool(ndim), convolution(ndim, channels, out_channels, 1), nn.ReLU()
        )
        self.project = branch(1, 1, out_channels * (len(rates) + 2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *size) -> (B, out_channels, *size)."""
        found = [branch(x) for branch in self.branches]
        found.append(self.image(x).expand_as(found[0]))
        result: Tensor = self.dropout(self.project(torch.cat(found, dim=1)))
        return result
