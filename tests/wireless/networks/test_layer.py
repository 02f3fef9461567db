# SPDX-License-Identifier: Apache-2.0
"""Message passing: the dense paths give the numbers of the graphs."""

import torch

from fieldfare.wireless.networks.layer import EdgeLayer, SetLayer


def complete(users: int) -> torch.Tensor:
    receiver, sender = torch.ones(users, users).fill_diagonal_(0).nonzero(as_tuple=True)
    return torch.stack([sender, receiver])


def test_complete_graphs_of_one_size_equal_the_dense_path() -> None:
    torch.manual_seed(0)
    layer = EdgeLayer(8, 6, 5, 3).double()
    h, x = torch.randn(4, 7, 8).double(), torch.randn(4, 7, 5).double()
    e = torch.randn(4, 7, 7, 3).double()
    dense = layer.dense(h, x, e)
    sender, receiver = complete(7)
    for index in range(4):
        edges = torch.stack([sender, receiver])
        graph = layer(h[index], x[index], edges, e[index, receiver, sender])
        torch.testing.assert_close(graph, dense[index], rtol=0, atol=1e-6)


def test_a_user_alone_receives_nothing() -> None:
    torch.manual_seed(0)
    layer = EdgeLayer(8, 6, 5, 3)
    h, x, e = torch.randn(2, 1, 8), torch.randn(2, 1, 5), torch.randn(2, 1, 1, 3)
    dense = layer.dense(h, x, e)
    expected = layer.nodes(h, x, torch.zeros(2, 1, 12))
    torch.testing.assert_close(dense, expected)
    graph = layer(h[0], x[0], torch.empty(2, 0, dtype=torch.int64), torch.empty(0, 3))
    torch.testing.assert_close(graph, expected[0])


def test_grids_with_gaps_equal_the_ragged_path() -> None:
    torch.manual_seed(0)
    layer = SetLayer(8, 5)
    mask = torch.rand(3, 4, 6) < 0.5
    h, x = torch.randn(3, 4, 6, 8), torch.randn(3, 4, 6, 5)
    dense = layer.dense(h, x, mask.unsqueeze(-1).float())
    for index in range(3):
        user, ap = mask[index].nonzero(as_tuple=True)
        served = mask[index]
        ragged = layer(h[index][served], x[index][served], [ap, user], [6, 4])
        torch.testing.assert_close(ragged, dense[index][served], rtol=0, atol=1e-6)
