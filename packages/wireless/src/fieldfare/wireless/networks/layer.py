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


class NodeUpdate(nn.Module):
    """h + LayerNorm(MLP([h, x, found])): the new state of every node.

    Args:
        width: of the state h.
        node_features: of the raw input x.
        found: width of what was aggregated from neighbours.
    """

    def __init__(self, width: int, node_features: int, found: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(width + node_features + found, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
            nn.LayerNorm(width),
        )

    def forward(self, h: Tensor, x: Tensor, found: Sequence[Tensor]) -> Tensor:
        """h (..., width), x (..., F) and what was found, spread or not, to (..., width)."""
        first, gelu, last, norm = self.network
        updated: Tensor = h + norm(last(gelu(linear_of(first, [h, x, *found]))))
        return updated


def linear_of(layer: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """The layer on parts side by side, each multiplied as it is and spread (...) only then.

    What all nodes of a set have in common is so multiplied once for the set.
    """
    if not isinstance(layer, nn.Linear):  # a rounded one rounds its whole input
        shape = torch.broadcast_tensors(*(part[..., :1] for part in parts))[0].shape[:-1]
        whole = torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], -1)
        found: Tensor = layer(whole)
        return found
    columns = layer.weight.split([part.shape[-1] for part in parts], 1)
    total = layer.bias
    for part, weight in zip(parts, columns, strict=True):
        total = total + part @ weight.mT
    return total


Pool = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""States (..., width), not negative, and who is served (..., 1), 1 or 0, to mean and maximum over
the served of each node's cell, spread to its nodes."""


class UserLayer(nn.Module):
    """State and correction of every user, from its features, its state, and all users' pooled.

    Args:
        width: of a state.
        features: of the raw input x.
        first: whether there is no state yet.
    """

    def __init__(self, width: int, features: int, first: bool) -> None:
        super().__init__()
        self.input = nn.Linear(features if first else features + width, width)
        self.mix = nn.Linear(3 * width, width)
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
    """Cells of any sizes, one after the other: h (n, width)."""
    cell = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))

    def pool(h: Tensor, served: Tensor) -> tuple[Tensor, Tensor]:
        h, members = h * served, cell.to(h.device)
        none = h.new_zeros(len(sizes), h.shape[-1])
        counts = none[:, :1].index_add(0, members, served)
        mean = none.index_add(0, members, h) / counts.clamp_min(1)
        most = none.scatter_reduce(0, members[:, None].expand_as(h), h, "amax")
        return mean[members], most[members]

    return pool


class SetLayer(nn.Module):
    """Messages to all nodes of the same set, m_j = relu(W h_j), for several families of sets.

    A node belongs to one set of each family (its access point's, its user's) and receives mean
    and maximum over that set, itself included: work and memory grow with the nodes, not with the
    pairs of nodes.

    Args:
        width: of states and messages.
        node_features: of the raw input x.
        families: of sets.
    """

    def __init__(self, width: int, node_features: int, families: int = 2) -> None:
        super().__init__()
        self.sender = nn.Linear(width, width)
        self.nodes = NodeUpdate(width, node_features, 2 * width * families)

    def forward(self, h: Tensor, x: Tensor, members: list[Tensor], counts: list[int]) -> Tensor:
        """One step on a ragged set of nodes.

        Args:
            h: (n, width); x: (n, F).
            members: of every family, (n,) int64: the set that each node belongs to.
            counts: of every family, the number of sets.

        Returns:
            (n, width).
        """
        from .geometric import set_messages

        sent = torch.relu(self.sender(h))
        own = torch.arange(len(h), device=h.device)
        found = []
        for member, count in zip(members, counts, strict=True):
            pooled = set_messages()(sent, torch.stack([own, member]), count)
            found.append(pooled[member])
        new: Tensor = self.nodes(h, x, found)
        return new

    def dense(self, h: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """One step on grids of nodes; the families are the rows and the columns.

        Args:
            h: (B, K, L, width); x: (B, K, L, F).
            mask: (B, K, L, 1), 1 for a node and 0 for a gap.

        Returns:
            (B, K, L, width), gaps holding anything.
        """
        sent = torch.relu(self.sender(h)) * mask
        found = []
        for axis in (1, 2):  # users of an AP, then APs of a user
            mean = sent.sum(axis, keepdim=True) / mask.sum(axis, keepdim=True).clamp_min(1)
            found += [mean, sent.amax(axis, keepdim=True)]
        new: Tensor = self.nodes(h, x, found)
        return new


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that gives zeros until it is trained."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
