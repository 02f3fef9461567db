# SPDX-License-Identifier: Apache-2.0
"""S-KAN and S-ConvKAN: each layer finds out which basis suits it.

Yang et al. 2024, *Activation Space Selectable Kolmogorov-Arnold Networks* (arXiv 2408.08338): a
pool of bases in weighted combination, trained in three stages (all of them, selectively, pruned to
one). The published text leaves the rule of the weights open; ours is a softmax for each layer whose
temperature falls in the second stage.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kan_bases import (
    ChebyshevKAN,
    GaussianKAN,
    GramKAN,
    JacobiKAN,
    ReluKAN,
    SplineKAN,
    SwitchKAN,
    WaveletKAN,
)
from .steps import Stepped

BASES: Mapping[str, Callable[[int, int], nn.Module]] = {
    "spline": SplineKAN,
    "chebyshev": ChebyshevKAN,
    "gaussian": GaussianKAN,
    "switch": SwitchKAN,
    "wavelet": WaveletKAN,
    "jacobi": JacobiKAN,
    "gram": GramKAN,
    "relu": ReluKAN,
}

COLDEST = 0.01
"""Temperature at the end of the second stage, from 1 at its start."""


class SelectableKAN(Stepped):
    """sum over k of softmax(preference / temperature)_k basis_k(x), (..., I) to (..., O).

    Args:
        in_features, out_features: I and O.
        pool: names in `BASES`, without repetition.
        full: optimiser steps of the first stage, temperature 1.
        selective: of the second, in which it falls to COLDEST, evenly in its logarithm.

    The steps must be counted, see `Stepped`. The third stage is `prune`.

    Raises:
        ValueError: an unknown basis, none or one twice.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pool: Sequence[str] = ("spline", "chebyshev", "gaussian", "wavelet"),
        *,
        full: int = 1000,
        selective: int = 1000,
    ) -> None:
        super().__init__()
        if not pool or len(set(pool)) < len(pool) or not set(pool) <= set(BASES):
            raise ValueError(f"pool must be different names of {tuple(BASES)}, got {tuple(pool)}")
        if full < 0 or selective < 1:
            raise ValueError(f"full {full} at least 0, selective {selective} at least 1")
        self.full, self.selective = full, selective
        self.bases = nn.ModuleDict({name: BASES[name](in_features, out_features) for name in pool})
        self.preference = nn.Parameter(torch.zeros(len(pool)))

    @property
    def temperature(self) -> float:
        """1 in the first stage, COLDEST after the second."""
        progress = (int(self.done) - self.full) / self.selective
        return math.pow(COLDEST, min(1.0, max(0.0, progress)))

    def shares(self) -> Tensor:
        """(bases,), the weight of each; sums to 1."""
        return torch.softmax(self.preference / self.temperature, dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        if len(self.bases) == 1:
            (only,) = self.bases.values()
            alone: Tensor = only(x)
            return alone
        found = torch.stack([basis(x) for basis in self.bases.values()])
        mixed: Tensor = torch.tensordot(self.shares(), found, dims=1)
        return mixed

    @torch.no_grad()
    def prune(self) -> str:
        """Drop all bases but the one of the largest share; the name of what is left.

        The output changes by what the others still gave. Make the optimiser anew afterwards.
        """
        name = list(self.bases)[int(self.preference.argmax())]
        self.bases = nn.ModuleDict({name: self.bases[name]})
        self.preference = nn.Parameter(self.preference.new_zeros(1))
        return name


def prune_bases(model: nn.Module) -> dict[str, str]:
    """Third stage of every SelectableKAN of a model: the basis left in each, by its name."""
    return {
        name: module.prune()
        for name, module in model.named_modules()
        if isinstance(module, SelectableKAN)
    }


class ConvKAN(nn.Module):
    """A layer of functions in place of a convolution's products, (B, C, *size) to (B, O, *size').

    The zeros of the padding pass through the functions as well, so what they give is not zero.

    Args:
        layer: takes (..., C * kernel ** ndim), channels slowest, to (..., O).
        kernel: side of the patches.
        stride, padding: as of a convolution.
        ndim: 1, 2 or 3.
    """

    def __init__(
        self, layer: nn.Module, kernel: int, *, stride: int = 1, padding: int = 0, ndim: int = 2
    ) -> None:
        super().__init__()
        if ndim not in (1, 2, 3):
            raise ValueError(f"ndim must be 1, 2 or 3, got {ndim}")
        self.layer = layer
        self.kernel, self.stride, self.padding, self.ndim = kernel, stride, padding, ndim

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, O, *size')."""
        x = F.pad(x, [self.padding] * (2 * self.ndim))
        for axis in range(2, 2 + self.ndim):
            x = x.unfold(axis, self.kernel, self.stride)
        # (B, C, *size', *kernel) -> (B, *size', C, *kernel)
        patches = x.movedim(1, 1 + self.ndim).flatten(1 + self.ndim)
        found: Tensor = self.layer(patches)
        return found.movedim(-1, 1)
