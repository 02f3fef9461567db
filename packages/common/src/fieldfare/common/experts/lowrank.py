# SPDX-License-Identifier: Apache-2.0
"""A matrix as a product of two thin ones plus a few whole rows.

Li et al. 2023, MC-SMoE (arXiv 2310.01334), after LoSparse (Li et al., arXiv 2306.11222): what the
singular values leave is kept in the rows that training is most sensitive to.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Factors(NamedTuple):
    """W = left @ right + remainder; (O, R), (R, D) and (O, D)."""

    left: Tensor
    right: Tensor
    remainder: Tensor


def factorise(weight: Tensor, share: float) -> Factors:
    """By singular values, their roots on both sides.

    Args:
        weight: (O, D).
        share: the thin matrices have this share of its weights: rank ceil(share O D / (O + D)).
    """
    rows, columns = weight.shape
    rank = math.ceil(share * rows * columns / (rows + columns))
    left, values, right = torch.linalg.svd(weight.detach(), full_matrices=False)
    root = values[:rank].sqrt()
    left, right = left[:, :rank] * root, root[:, None] * right[:rank]
    return Factors(left, right, weight.detach() - left @ right)


def share_kept(step: int, first: int, last: int, final: float) -> float:
    """Of the remainder's rows at a step: 1 up to `first`, a cubic, `final` from `last` on."""
    done = min(1.0, max(0.0, (step - first) / (last - first)))
    return final + (1 - final) * (1 - done) ** 3


class Sensitivity:
    """Running mean of |weight x gradient| of each weight.

    Args:
        beta: share of the old mean.
    """

    def __init__(self, beta: float = 0.85) -> None:
        self.beta = beta
        self.mean: Tensor | None = None

    def add(self, weight: Tensor, gradient: Tensor) -> None:
        """After a backward pass."""
        now = (weight * gradient).detach().abs()
        old = torch.zeros_like(now) if self.mean is None else self.mean
        self.mean = self.beta * old + (1 - self.beta) * now

    def rows(self, share: float, compat: Literal["published"] | None = None) -> Tensor:
        """(O,) bool: the share of rows, rounded up, with the largest mean sensitivity.

        Published are those from the one on that is `O (1 - share)`-th from below, one more.
        """
        if self.mean is None:
            raise ValueError("no gradient was added yet")
        score = self.mean.mean(dim=1)
        if compat == "published":
            return score >= score.kthvalue(max(1, int(len(score) * (1 - share)))).values
        kept = score.argsort(descending=True, stable=True)[: math.ceil(share * len(score))]
        return torch.zeros_like(score, dtype=torch.bool).index_fill(0, kept, True)


class LowRankSparse(nn.Module):
    """x -> (left right + rows) x + b, with the products that are left, and no others.

    Args:
        factors: of the weight.
        rows: (O,) bool, rows of the remainder that are kept.
        bias: (O,).
    """

    rows: Tensor

    def __init__(self, factors: Factors, rows: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(factors.left), nn.Parameter(factors.right)
        self.kept = nn.Parameter(factors.remainder[rows].clone())
        self.register_buffer("rows", rows.nonzero()[:, 0])
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., O)."""
        output = F.linear(F.linear(x, self.right), self.left, self.bias)
        return output.index_add(-1, self.rows, F.linear(x, self.kept))
