# SPDX-License-Identifier: Apache-2.0
"""Message passing: the dense paths give the numbers of the graphs."""

import torch

from fieldfare.wireless.networks.layer import UserLayer, pool_all, pool_of


def test_cells_of_any_sizes_pool_as_cells_of_one_size() -> None:
    torch.manual_seed(0)
    layer = UserLayer(8, 5, first=False).double()
    torch.nn.init.normal_(layer.head.weight)
    x, h = torch.randn(4, 7, 5).double(), torch.randn(4, 7, 8).double()
    served = (torch.rand(4, 7, 1) < 0.6).double()
    state, correction = layer(x, h, served, pool_all)
    for sizes in ([7, 7, 7, 7], [7, 14, 7]):
        pool = pool_of(sizes)
        found, corrected = layer(x.flatten(0, 1), h.flatten(0, 1), served.flatten(0, 1), pool)
        same = [index for index, size in enumerate(sizes) if size == 7]
        for cell in (0, len(same) - 1):
            place = slice(7 * cell, 7 * cell + 7) if len(sizes) == 4 else slice(0, 7)
            wanted = cell if len(sizes) == 4 else 0
            torch.testing.assert_close(found[place], state[wanted])
            torch.testing.assert_close(corrected[place], correction[wanted])


def test_untrained_a_layer_corrects_nothing() -> None:
    layer = UserLayer(8, 5, first=True)
    _, correction = layer(torch.randn(2, 3, 5), None, torch.ones(2, 3, 1), pool_all)
    assert (correction == 0).all()
