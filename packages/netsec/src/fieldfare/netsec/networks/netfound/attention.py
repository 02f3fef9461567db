# SPDX-License-Identifier: Apache-2.0
"""RoFormer attention followed by a gated feed-forward layer.

The names of the sub-modules are those of the published checkpoints.

Sources: RoFormer, Su et al. 2021, arXiv 2104.09864, eq. 34; gated feed-forward layer, Shazeer 2020,
arXiv 2002.05202; order of the norms, ModernBERT, Warner et al. 2024, arXiv 2412.13663.
"""

import contextlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .config import NetFoundConfig

ATTENTION_EPS, MLP_EPS = 1e-12, 1e-5


def rotary_table(positions: int, width: int) -> Tensor:
    """Sines, then cosines, of the rotation angle of each pair of channels.

    Returns:
        (positions, width) float32; angle of position p and pair i is p / 10000^(2 i / width).

    Source: arXiv 2104.09864, eq. 15.
    """
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels by its position's angle.

    Args:
        x: (..., L, D), D even.
        table: (L, D) by `rotary_table`.

    Returns:
        Same shape and type as x.

    Source: arXiv 2104.09864, eq. 34.
    """
    sine, cosine = table.to(x.dtype).chunk(2, dim=-1)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = (even * cosine - odd * sine, odd * cosine + even * sine)
    return torch.stack(turned, dim=-1).flatten(-2)


class RotaryTable(nn.Module):
    """Holds a `rotary_table` under the name it has in published checkpoints; never trained."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(rotary_table(positions, width), requires_grad=False)

    def forward(self, length: int) -> Tensor:
        """The first `length` positions, (length, width)."""
        return self.weight[:length]


class RotarySelfAttention(nn.Module):
    """Multi-head attention with rotary positions, before its output projection."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.compat = config.compat
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor, table: Tensor) -> Tensor:
        """Attend.

        Args:
            x: (N, L, H).
            mask: (N, L) bool, True where a token may be attended to.
            table: (L, H / heads) by `rotary_table`.

        Returns:
            (N, L, H). A row without any token to attend to gets the mean over all.
        """

        def split(y: Tensor) -> Tensor:
            found: Tensor = y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            return found

        query = rotate(split(self.query(x)), table)
        key = rotate(split(self.key(x)), table)
        value = split(self.value(x))
        # The least finite number, not -inf: a burst of padding alone must not give NaN.
        least = torch.finfo(query.dtype).min
        bias = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device)
        bias = bias.masked_fill(~mask, least)[:, None, None, :]
        # For rows without a token the fused kernels' backward is wrong (seen in torch 2.15); only
        # the published computation lets such rows reach the loss.
        exact = self.compat and torch.is_grad_enabled()
        with sdpa_kernel(SDPBackend.MATH) if exact else contextlib.nullcontext():
            attended = F.scaled_dot_product_attention(
                query, key, value, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0
            )
        return attended.transpose(1, 2).flatten(2)


class AttentionOutput(nn.Module):
    """Output projection, residual and norm behind it."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=ATTENTION_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, attended: Tensor, x: Tensor) -> Tensor:
        """(N, L, H) twice -> (N, L, H)."""
        found: Tensor = self.LayerNorm(x + self.dropout(self.dense(attended)))
        return found


class RoFormerAttention(nn.Module):
    """Post-norm attention with rotary positions."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        self.self = RotarySelfAttention(config)
        self.output = AttentionOutput(config)

    def forward(self, x: Tensor, mask: Tensor, table: Tensor) -> Tensor:
        """(N, L, H) -> the same shape; see `RotarySelfAttention.forward`."""
        found: Tensor = self.output(self.self(x, mask, table), x)
        return found


class GatedMLP(nn.Module):
    """GELU (tanh form) of one half of a projection times the other half, projected back."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        self.Wi = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.Wo = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) -> the same shape."""
        activated, gate = self.Wi(x).chunk(2, dim=-1)
        found: Tensor = self.Wo(self.dropout(F.gelu(activated, approximate="tanh") * gate))
        return found


class EncoderLayer(nn.Module):
    """Post-norm attention, then a pre-norm gated feed-forward layer."""

    def __init__(self, config: NetFoundConfig) -> None:
        super().__init__()
        self.attention = RoFormerAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=MLP_EPS, bias=False)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, mask: Tensor, table: Tensor) -> Tensor:
        """(N, L, H) -> the same shape; see `RotarySelfAttention.forward`."""
        x = self.attention(x, mask, table)
        found: Tensor = x + self.mlp(self.mlp_norm(x))
        return found
