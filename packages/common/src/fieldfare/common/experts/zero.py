# SPDX-License-Identifier: Apache-2.0
"""Experts that compute next to nothing: give zero, the token itself, or a learnt vector.

Jin et al. 2024, *MoE++* (arXiv 2410.07348). With `Bank` they share one interface: `count` experts,
called with tokens (N, D), weights (N, count) and chosen (N, count) or None.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Zero(nn.Module):
    """One expert that gives zero: the token leaves the layer."""

    count = 1

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor | None) -> Tensor:
        """(N, D) -> zeros (N, D)."""
        return torch.zeros_like(x)


class Copy(nn.Module):
    """One expert that gives the token as it came."""

    count = 1

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor | None) -> Tensor:
        """(N, D) -> (N, D)."""
        return weights * x


class Constant(nn.Module):
    """`count` experts a x + b v each, (a, b) = softmax(W x), v learnt.

    Args:
        count: of experts.
        width: D.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.count = count
        self.constant = nn.Parameter(torch.randn(count, width))
        self.mix = nn.Parameter(torch.randn(count, 2, width) / width**0.5)

    def _one(self, x: Tensor, number: int) -> Tensor:
        own, constant = F.linear(x, self.mix[number]).softmax(dim=-1).split(1, dim=-1)
        mixed: Tensor = own * x + constant * self.constant[number]
        return mixed

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor | None) -> Tensor:
        """(N, D) -> (N, D)."""
        output = torch.zeros_like(x)
        for number in range(self.count):
            if chosen is None:
                output = output + self._one(x, number) * weights[:, number, None]
                continue
            rows = chosen[:, number].nonzero()[:, 0]
            value = self._one(x[rows], number) * weights[rows, number, None]
            output = output.index_add(0, rows, value)
        return output
