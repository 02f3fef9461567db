# SPDX-License-Identifier: Apache-2.0
"""The message passing of the information-carrying graph neural network (ICGNN).

All nodes of the virtual graph are alike and share one network. Every layer sees the raw features
again beside the state ("information-carrying") and adds to the state what it finds. A node's
neighbours enter as mean and maximum of non-negative messages, whatever their number; a node
without neighbours receives zeros.

Source: the idea, Sun et al. (arXiv 2408.17252, abstract); the layer is this package's own design.
"""

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

    def forward(self, h: Tensor, x: Tensor, found: Tensor) -> Tensor:
        """h (..., width), x (..., F), found (..., found) to (..., width)."""
        updated: Tensor = h + self.network(torch.cat([h, x, found], -1))
        return updated


class EdgeLayer(nn.Module):
    """Messages along edges with features: m_kj = relu(W_a h_k + W_b h_j + W_e e_kj), j to k.

    `forward` takes a graph of any shape; `dense` takes complete graphs of one size, without
    gathering or scattering, and gives the same numbers.

    Args:
        width: of states.
        messages: of messages; their number grows with the square of the nodes.
        node_features, edge_features: of the raw inputs x and e.
    """

    def __init__(self, width: int, messages: int, node_features: int, edge_features: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(width, messages)
        self.sender = nn.Linear(width, messages, bias=False)
        self.edge = nn.Linear(edge_features, messages, bias=False)
        self.nodes = NodeUpdate(width, node_features, 2 * messages)

    def forward(self, h: Tensor, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        """One step on a graph.

        Args:
            h: (n, width) states; x: (n, F) raw features.
            edge_index: (2, m) int64, sender and receiver of every edge.
            e: (m, F_e) edge features.

        Returns:
            (n, width).
        """
        from .geometric import edge_messages

        found = edge_messages()(self.receiver(h), self.sender(h), self.edge(e), edge_index)
        new: Tensor = self.nodes(h, x, found)
        return new

    def dense(self, h: Tensor, x: Tensor, e: Tensor) -> Tensor:
        """One step on a batch of complete graphs without self-loops.

        Args:
            h: (B, K, width); x: (B, K, F).
            e: (B, K, K, F_e); e[:, k, j] belongs to the edge from j to k.

        Returns:
            (B, K, width).
        """
        users = h.shape[1]
        others = 1 - torch.eye(users, dtype=h.dtype, device=h.device).unsqueeze(-1)
        # In place: these are by far the largest tensors, and their memory is most of the time.
        messages = self.edge(e)
        messages += self.receiver(h).unsqueeze(2)
        messages += self.sender(h).unsqueeze(1)
        messages *= others
        # Not negative, so that the diagonal's zeros change neither sum nor maximum.
        messages = messages.relu_()
        mean = messages.sum(2) / max(users - 1, 1)
        new: Tensor = self.nodes(h, x, torch.cat([mean, messages.amax(2)], -1))
        return new


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
        new: Tensor = self.nodes(h, x, torch.cat(found, -1))
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
            found += [mean.expand_as(sent), sent.amax(axis, keepdim=True).expand_as(sent)]
        new: Tensor = self.nodes(h, x, torch.cat(found, -1))
        return new


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that gives zeros until it is trained."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
