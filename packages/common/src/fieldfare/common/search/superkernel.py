# SPDX-License-Identifier: Apache-2.0
"""One large depthwise kernel that decides by thresholds how much of it is used.

Single-Path NAS (Stamoulis et al. 2019, arXiv 1904.02877): a 5x5 kernel of all channels holds the
3x3 kernel in its middle and half of the channels in its first half; skipping the layer is none of
them. Each decision compares the norm of what would be added with a learnable threshold.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _Indicator(torch.autograd.Function):
    """1 where x >= 0; its gradient is that of the logistic function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *towards: Any) -> Any:
        (x,) = ctx.saved_tensors
        sigmoid = x.sigmoid()
        return towards[0] * sigmoid * (1 - sigmoid)


class Decisions(NamedTuple):
    """Scalars, 0 or 1: the outer ring, the first half of the channels, the second half."""

    ring: Tensor
    first: Tensor
    second: Tensor


class Superkernel(nn.Module):
    """The masked kernel of a depthwise convolution in 1, 2 or 3 dimensions.

    Args:
        weight: (C, 1, k, ...), k odd and at least 5; its outermost ring may be dropped.
        skippable: whether the whole layer may go; not where it has a stride.
        normalised: thresholds are compared with the root mean square instead of the plain norm,
            which grows with the kernel's size; the paper takes the plain norm.
    """

    def __init__(self, weight: Tensor, *, skippable: bool = True, normalised: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.skippable, self.normalised = skippable, normalised
        self.ring_threshold = nn.Parameter(torch.zeros(()))
        self.first_threshold = nn.Parameter(torch.zeros(()))
        self.second_threshold = nn.Parameter(torch.zeros(()))
        inner = torch.zeros(weight.shape[1:])
        inner[(slice(None), *[slice(1, -1)] * (weight.ndim - 2))] = 1
        self.inner: Tensor
        self.register_buffer("inner", inner, persistent=False)

    def _norm(self, x: Tensor) -> Tensor:
        size: Tensor = torch.linalg.vector_norm(x)
        return size / x.numel() ** 0.5 if self.normalised else size

    def decide(self) -> tuple[Tensor, Decisions]:
        """The masked kernel (C, 1, k, ...), and what was decided."""
        half = len(self.weight) // 2
        middle, outer = self.weight * self.inner, self.weight * (1 - self.inner)
        ring = _Indicator.apply(self._norm(outer) - self.ring_threshold)
        kernel = middle + ring * outer
        second = _Indicator.apply(self._norm(kernel[half:]) - self.second_threshold)
        first = torch.ones_like(second)
        if self.skippable:
            first = _Indicator.apply(self._norm(kernel[:half]) - self.first_threshold)
        masked = first * torch.cat([kernel[:half], second * kernel[half:]])
        return masked, Decisions(ring, first, second)

    def forward(self) -> Tensor:
        """The masked kernel."""
        return self.decide()[0]

    @torch.no_grad()
    def choice(self) -> tuple[int, float]:
        """What the layer becomes: (kernel size, share of the channels); (0, 0) is no layer."""
        _, (ring, first, second) = self.decide()
        if not first:
            return 0, 0.0
        whole = self.weight.shape[-1]
        return (whole if ring else whole - 2), (1.0 if second else 0.5)


def runtime(decisions: Decisions, small: float, half: float, whole: float) -> Tensor:
    """Time of the layer that was decided for, with gradients towards the thresholds.

    Args:
        small: of the smaller kernel with all channels.
        half: of the whole kernel with half of the channels.
        whole: of all.
    """
    share = small / whole
    grown = half + decisions.second * (whole - half)
    return decisions.first * grown * (share + (1 - share) * decisions.ring)
