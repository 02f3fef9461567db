# SPDX-License-Identifier: Apache-2.0
"""The Mamba-1 mixer and the residual block around it.

Gu and Dao 2023, arXiv 2312.00752: section 3.4 for the block, section 3.6 for the initial values.
Names of parameters are those of published checkpoints.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.blocks import selective_scan

STEP_RANGE = (1e-3, 0.1)
"""The initial step sizes, log-uniform."""

STEP_FLOOR = 1e-4


class Mamba(nn.Module):
    """A gated, causal sequence mixer; (B, L, dim) in and out.

    Args:
        dim: width of the input.
        state_dim: states of each channel.
        conv_kernel: width of the causal depthwise convolution.
        expand: inner channels for each of dim.
    """

    def __init__(
        self, dim: int, state_dim: int = 16, conv_kernel: int = 4, expand: int = 2
    ) -> None:
        super().__init__()
        inner = expand * dim
        self.state_dim = state_dim
        self.step_rank = step_rank(dim)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv_kernel, groups=inner, padding=conv_kernel - 1)
        self.x_proj = nn.Linear(inner, self.step_rank + 2 * state_dim, bias=False)
        self.dt_proj = nn.Linear(self.step_rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state_dim + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._initialise_steps()

    def _initialise_steps(self) -> None:
        bound = self.step_rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        low, high = map(math.log, STEP_RANGE)
        step = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp().clamp(min=STEP_FLOOR)
        with torch.no_grad():  # the inverse of softplus
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, dim) -> the same shape."""
        length = x.shape[1]
        # Channels before time throughout, as convolution and scan read them.
        inner, gate = _project(self.in_proj.weight, x.mT).chunk(2, dim=1)
        inner = F.silu(self.conv1d(inner)[..., :length])
        step, write, read = _project(self.x_proj.weight, inner).split(
            [self.step_rank, self.state_dim, self.state_dim], dim=1
        )
        y = selective_scan(
            inner,
            _project(self.dt_proj.weight, step),
            -torch.exp(self.A_log.float()),
            write,
            read,
            self.D.float(),
            z=gate,
            delta_bias=self.dt_proj.bias.float(),
            delta_softplus=True,
        )
        found: Tensor = self.out_proj(y.mT)
        return found


def step_rank(dim: int) -> int:
    """Numbers that the steps of all channels are made of."""
    return math.ceil(dim / 16)


def _project(weight: Tensor, x: Tensor) -> Tensor:
    """(D, C) times (B, C, L) -> (B, D, L), contiguous, where a broadcast product would be not."""
    return torch.bmm(weight.expand(x.shape[0], -1, -1), x)


class RMSNorm(nn.Module):
    """x / rms(x) times a learnt weight, computed in float32; (..., dim) in and out.

    Source: Zhang and Sennrich 2019, arXiv 1910.07467.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> the same shape, of the weight's type."""
        normed = F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps)
        return normed.to(self.weight.dtype)


class Block(nn.Module):
    """Add, norm, mix: the sum of what came before goes along in float32.

    Args:
        mixer: (B, L, dim) in and out.
        dim: width.
        drop_path: rate at which a sample's last mixer output is left out, in training.

    Attributes:
        feed: (B, L, dim) in and out, beside the mixer; None: nothing.
    """

    def __init__(self, mixer: nn.Module, dim: int, drop_path: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = RMSNorm(dim)
        self.drop_path = drop_path
        self.feed: nn.Module | None = None

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, L, dim) twice -> the mixer's output and the sum of all before it."""
        residual = add(x, residual, self.drop_path, training=self.training)
        normed = self.norm(residual)
        mixed = self.mixer(normed)
        return mixed if self.feed is None else mixed + self.feed(normed), residual


def add(x: Tensor, residual: Tensor | None, drop_path: float, *, training: bool) -> Tensor:
    """The residual, float32, plus x; x is left out for a random share of samples in training.

    Source: stochastic depth, Huang et al. 2016, arXiv 1603.09382.
    """
    if residual is None:
        return x.float()
    if training and drop_path:
        kept = torch.rand(len(x), 1, 1, device=x.device) >= drop_path
        x = x * kept.to(x.dtype) / (1 - drop_path)
    return residual + x


def run_blocks(
    blocks: Sequence[nn.Module], x: Tensor, drop_path: float, *, training: bool
) -> Tensor:
    """Blocks in turn, then the last addition; (B, L, dim) in, the sum of all, float32, out."""
    residual = None
    for block in blocks:
        x, residual = block(x, residual)
    return add(x, residual, drop_path, training=training)
