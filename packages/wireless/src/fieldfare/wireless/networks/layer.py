# SPDX-License-Identifier: Apache-2.0
"""The message passing of the information-carrying graph neural network (ICGNN).

All nodes of the virtual graph are alike and share one network. Every layer sees the raw features
again beside the state ("information-carrying") and adds to the state what it finds. A node's
neighbours enter as mean and maximum of non-negative messages, whatever their number; a node
without neighbours receives zeros.

Source: the idea, Sun et al. (arXiv 2408.17252, abstract); the layer is this package's own design.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Pool = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""States (..., width), not negative, and who is served (..., 1), 1 or 0, to mean and maximum over
the served of each node's cell, spread to its nodes, and perhaps more of these."""


class UserLayer(nn.Module):
    """State and correction of every user, from its features, its state, and all users' pooled.

    Args:
        width: of a state.
        features: of the raw input x.
        first: whether there is no state yet.
        pools: parts that the layer is given as pooled.
    """

    def __init__(self, width: int, features: int, first: bool, pools: int = 2) -> None:
        super().__init__()
        self.input = nn.Linear(features if first else features + width, width)
        self.mix = nn.Linear((1 + pools) * width, width)
        self.head = zero_linear(width, 2)

    def forward(
        self, x: Tensor, h: Tensor | None, served: Tensor, pool: Pool
    ) -> tuple[Tensor, Tensor]:
        """x (..., features), h (..., width) or None, to the new state and two numbers (..., 2)."""
        new = torch.relu(self.input(x if h is None else torch.cat([x, h], -1)))
        new = torch.relu(self.mix(torch.cat([new, *pool(new, served)], -1)))
        return new, self.head(new)


def pool_all(h: Tensor, served: Tensor) -> tuple[Tensor, Tensor]:
    """Cells of one size: h (B, K, width)."""
    h = h * served
    mean = h.sum(-2, keepdim=True) / served.sum(-2, keepdim=True).clamp_min(1)
    return mean.expand_as(h), h.amax(-2, keepdim=True).expand_as(h)


def pool_of(sizes: Sequence[int]) -> Pool:
    """Cells of any sizes, one after the other, as one graph: h (n, width)."""
    cell = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    edges = torch.stack([torch.arange(len(cell)), cell])

    def pool(h: Tensor, served: Tensor) -> tuple[Tensor, Tensor]:
        from .geometric import set_messages

        width = h.shape[-1]
        sent = torch.cat([h * served, served], -1)
        found = set_messages()(sent, edges.to(h.device), len(sizes))[cell.to(h.device)]
        share = found[:, width : width + 1].clamp_min(1e-9)
        return found[:, :width] / share, found[:, width + 1 : -1]

    return pool


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that gives zeros until it is trained."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
