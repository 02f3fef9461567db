# SPDX-License-Identifier: Apache-2.0
"""Simplified linear attention: ReLU in place of softmax, so that tokens need not meet in pairs.

Guo et al. 2024, SLAB (arXiv 2405.11582), section 3.3. Products of three matrices can be taken in
either order: keys with values first costs 2 N d^2 multiply-adds a head, queries with keys first
2 N^2 d. Both give the same result; the cheaper is taken.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .nd import convolution, convolve

EPS = 1e-6
LOCAL = 5
"""Side of the depthwise convolution over the values."""


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, pairs: bool | None = None) -> Tensor:
    """y_i = sum_j (q_i . k_j) v_j / (q_i . sum_j k_j + EPS).

    Args:
        q, k: (..., N, d), not negative.
        v: (..., N, e).
        pairs: queries meet keys first (quadratic in N), or keys meet values first (linear); the
            cheaper when None, which is pairs where N <= d.

    Returns:
        (..., N, e).
    """
    tokens, width = q.shape[-2:]
    pairs = tokens <= width if pairs is None else pairs
    total = q @ k.sum(dim=-2, keepdim=True).transpose(-1, -2)
    mixed = (q @ k.transpose(-1, -2)) @ v if pairs else q @ (k.transpose(-1, -2) @ v)
    return mixed / (total + EPS)


class LinearAttention(nn.Module):
    """Attention over all tokens of a window, plus a depthwise convolution over its values.

    The sums run over all tokens with no mask: do not shift a window that wraps around an edge.

    Args:
        channels: C, of input and output.
        heads: divides C.
        size: the window's sides, 1, 2 or 3 of them; the tokens are its positions in row order.

    Raises:
        ValueError: heads does not divide channels.
    """

    def __init__(self, channels: int, heads: int, size: Sequence[int]) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads {heads} must divide channels {channels}")
        self.heads, self.size = heads, tuple(size)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.position = nn.Parameter(torch.zeros(1, math.prod(self.size), channels))
        width = channels // heads
        # one set of kernels for all heads
        self.local: Any = convolution(
            len(self.size), width, width, LOCAL, padding=LOCAL // 2, groups=width
        )
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> the same shape, N the product of size; float32 between qkv and proj.

        Raises:
            ValueError: another number of tokens than the window has.
        """
        batch, tokens, channels = x.shape
        if tokens != self.position.shape[1]:
            raise ValueError(f"a window of {self.size} takes as many tokens, got {tokens}")
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        with _without_autocast(x.device.type):
            kind = torch.promote_types(q.dtype, torch.float32)
            k = k.to(kind) + self.position
            q, k, v = (self._split(part) for part in (q.to(kind).relu(), k.relu(), v.to(kind)))
            y = linear_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, channels)
            image = v.transpose(-1, -2).reshape(batch * self.heads, -1, *self.size)
            weight, bias = self.local.weight.to(kind), self.local.bias.to(kind)
            local = convolve(image, weight, bias, padding=LOCAL // 2, groups=image.shape[1])
            y = y + local.reshape(batch, channels, tokens).transpose(1, 2)
        found: Tensor = self.proj(y.to(x.dtype))
        return found

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads)."""
        parts: Tensor = x.unflatten(-1, (self.heads, -1))
        return parts.transpose(1, 2)


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    """Nothing on devices that have no autocast, such as meta."""
    if torch.amp.autocast_mode.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
