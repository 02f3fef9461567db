# SPDX-License-Identifier: Apache-2.0
"""An ensemble whose members share their first part.

Chen et al. 2021, *One-Shot Neural Ensemble Architecture Search by Diversity-Guided Search Space
Shrinking* (arXiv 2104.00597): the trunk runs once; the branches' gradients into it are divided by
their number, so it learns at the rate of one network; outputs are averaged. How the paper weighs
diversity is not published; here it is the share of samples on which two branches disagree, averaged
over pairs.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor, nn


class _Scale(torch.autograd.Function):
    """Identity forward; the gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class Ensemble(nn.Module):
    """(B, ...) -> mean of the branches' logits (B, C, ...).

    Args:
        trunk: shared.
        branches: of what the trunk gives, each to logits of one shape.

    Raises:
        ValueError: no branch.
    """

    def __init__(self, trunk: nn.Module, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        if not branches:
            raise ValueError("an ensemble needs at least one branch")
        self.trunk, self.branches = trunk, nn.ModuleList(branches)

    def each(self, x: Tensor) -> Tensor:
        """(B, ...) -> (K, B, C, ...), the logits of every branch."""
        shared = cast(Tensor, _Scale.apply(self.trunk(x), 1 / len(self.branches)))
        return torch.stack([branch(shared) for branch in self.branches])

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, C, ...)."""
        return self.each(x).mean(dim=0)


def disagreement(logits: Tensor) -> float:
    """Share of samples on which two members say different classes, mean over pairs; (K, B, C)."""
    says = logits.argmax(dim=2)
    pairs = list(combinations(range(len(says)), 2))
    if not pairs:
        return 0.0
    return sum(float((says[a] != says[b]).double().mean()) for a, b in pairs) / len(pairs)
