# SPDX-License-Identifier: Apache-2.0
"""The virtual graph of a cell: users as nodes, the base station folded into their Gram matrix.

Two kinds of features. What is there before precoding comes from the Gram matrix A = H H^H P / s2.
What a choice of power shares does, the response, comes from |h_k w_j|^2 / s2, the power of every
symbol at every user. All are ratios, so that units and path loss do not matter; none depends on
the phase of a user, nor on the number of antennas but through A. They are functions of squared
magnitudes alone and serve complex tensors and their real embeddings alike.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .geometric import Batch

STATIC_NODES, STATIC_EDGES = 5, 4
RESPONSE_NODES, RESPONSE_EDGES = 7, 3
NODE_FEATURES = STATIC_NODES + RESPONSE_NODES
EDGE_FEATURES = STATIC_EDGES + RESPONSE_EDGES

TINY = 1e-12


class UserGraph(NamedTuple):
    """Nodes x (B, K, F) and edges e (B, K, K, F_e), e[:, k, j] from user j to user k; real."""

    x: Tensor
    e: Tensor


def static_features(gram: Tensor, gram_power: Tensor, weights: Tensor) -> UserGraph:
    """Features before precoding, F = 5 and F_e = 4.

    Args:
        gram: (B, K), diagonal of A: every user's SNR if it were alone.
        gram_power: (B, K, K), |A|^2.
        weights: (B, K), positive, of the users' rates.
    """
    users = gram.shape[-1]
    gram = gram.clamp_min(TINY)
    log_gram, log_weights = gram.log(), weights.log()
    cosine = gram_power / (gram.unsqueeze(-1) * gram.unsqueeze(-2))
    cosine = cosine.clamp(0, 1) * _off_diagonal(gram)
    mean_gain = torch.log1p(gram.mean(-1, keepdim=True) / users).expand_as(gram)
    x = torch.stack(
        [
            torch.log1p(gram / users) / 3,
            torch.log1p(cosine.sum(-1)),
            mean_gain / 3,
            torch.ones_like(gram).sum(-1, keepdim=True).log().expand_as(gram) / 2,
            log_weights,
        ],
        -1,
    )
    e = torch.stack(
        [
            cosine.sqrt(),
            torch.log1p(cosine * gram.unsqueeze(-1) / users) / 3,
            (log_gram.unsqueeze(-1) - log_gram.unsqueeze(-2)) / 3,
            log_weights.unsqueeze(-1) - log_weights.unsqueeze(-2),
        ],
        -1,
    )
    return UserGraph(x, e)


def response_features(
    received: Tensor, uplink: Tensor, downlink: Tensor, weights: Tensor
) -> UserGraph:
    """Features of what shares of power do, F = 7 and F_e = 3.

    Args:
        received: (B, K, K), |h_k w_j|^2 / s2 at user k of the symbol for j.
        uplink, downlink: (B, K), the shares lambda and p, each of sum 1.
        weights: (B, K).

    Returns:
        Among them where a step of WMMSE would go from here: its uplink shares, and its powers
        before the columns get their length.
    """
    signal = received.diagonal(dim1=-2, dim2=-1)
    leakage = received * _off_diagonal(signal)
    interference = leakage.sum(-1)
    unwanted, total = 1 + interference, 1 + interference + signal
    log_uplink = _log_ratio(uplink)
    x = torch.stack(
        [
            torch.log1p(signal) / 3,
            torch.log1p(interference) / 3,
            torch.log1p(signal / unwanted) / 3,
            log_uplink,
            _log_ratio(downlink),
            _log_ratio(weights * signal / (unwanted * total)),
            _log_ratio(weights * total / unwanted),
        ],
        -1,
    )
    log_leakage = torch.log1p(leakage) / 3
    difference = log_uplink.unsqueeze(-1) - log_uplink.unsqueeze(-2)
    return UserGraph(x, torch.stack([log_leakage, log_leakage.mT, difference], -1))


def join(static: UserGraph, response: UserGraph) -> UserGraph:
    """Both kinds side by side."""
    return UserGraph(torch.cat([static.x, response.x], -1), torch.cat([static.e, response.e], -1))


def batch_graphs(graphs: Sequence[UserGraph]) -> "Batch":
    """Users of any number of cells as one graph of torch_geometric, cell after cell.

    Args:
        graphs: each of one cell, its B = 1.

    Returns:
        With x (n, F), edge_index (2, m), edge_attr (m, F_e) and batch (n,), the cell of each user.
    """
    from .geometric import Batch, Data

    cells = []
    for x, e in graphs:
        users = x.shape[1]
        pairs = torch.ones(users, users, device=x.device).fill_diagonal_(0)
        receiver, sender = pairs.nonzero(as_tuple=True)
        index = torch.stack([sender, receiver])
        cells.append(Data(x=x[0], edge_index=index, edge_attr=e[0, receiver, sender]))
    return Batch.from_data_list(cells)


def _off_diagonal(like: Tensor) -> Tensor:
    return 1 - torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _log_ratio(values: Tensor) -> Tensor:
    """Logarithm over the users' mean, a third of it, at least -4."""
    mean = values.mean(-1, keepdim=True).clamp_min(TINY)
    return (values / mean).clamp_min(6e-6).log() / 3
