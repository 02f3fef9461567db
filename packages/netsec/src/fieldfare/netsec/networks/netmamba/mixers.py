# SPDX-License-Identifier: Apache-2.0
"""What mixes tokens in a block of NetMamba: the published scan, or attention in its place.

Softmax attention: Vaswani et al. 2017 (arXiv 1706.03762). Linear attention: Guo et al. 2024, SLAB
(arXiv 2405.11582). Both see every token; the scan sees what came before.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.blocks import LinearAttention

from .mamba import Mamba

HEAD = 32
"""Numbers of a head; a narrower network has one head."""


class SoftmaxAttention(nn.Module):
    """(B, L, dim) in and out.

    Args:
        dim: a multiple of `HEAD`, or below it.

    Raises:
        ValueError: another dim.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = heads_of(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, dim) -> the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        found: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return found


def heads_of(dim: int) -> int:
    """How many heads a width has.

    Raises:
        ValueError: it is above `HEAD` and no multiple of it.
    """
    if dim > HEAD and dim % HEAD:
        raise ValueError(f"attention of width {dim}: must be a multiple of {HEAD}")
    return max(1, dim // HEAD)


def make_mixer(
    kind: str, dim: int, tokens: int, *, state_dim: int, conv_kernel: int, expand: int
) -> nn.Module:
    """One of `config.MIXERS`.

    Args:
        tokens: L; only linear attention is bound to it.
        state_dim, conv_kernel, expand: of the scan.
    """
    if kind == "linear":
        return LinearAttention(dim, heads_of(dim), (tokens,))
    if kind == "softmax":
        return SoftmaxAttention(dim)
    return Mamba(dim, state_dim, conv_kernel, expand)
