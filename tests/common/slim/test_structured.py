# SPDX-License-Identifier: Apache-2.0
"""Channels taken out by torch-pruning: the budget met, the model unchanged, three dimensions."""

import copy
import sys

import pytest
import torch
from torch import nn

from fieldfare.common.blocks import MBConv
from fieldfare.common.efficiency import cost
from fieldfare.common.errors import InputError
from fieldfare.common.slim.structured import prune_to


def network(ndim: int) -> nn.Sequential:
    conv = nn.Conv2d if ndim == 2 else nn.Conv3d
    return nn.Sequential(
        conv(2, 32, 3, padding=1),
        nn.ReLU(),
        MBConv(32, 32, ndim=ndim, norm="batch", expansion=2, attention="se"),
        conv(32, 32, 3, padding=1),
        nn.ReLU(),
        conv(32, 3, 1),
    )


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("share", [0.6, 0.25])
def test_the_budget_is_met_and_the_model_is_unchanged(ndim, share):
    pytest.importorskip("torch_pruning")
    model, x = network(ndim).eval(), torch.randn(1, 2, *[8] * ndim)
    before = copy.deepcopy(model.state_dict())
    pruned = prune_to(model, x, share, keep=[model[-1]], multiple=4)
    left = cost(pruned, x).macs / cost(model, x).macs
    assert 0.6 * share < left <= share
    assert pruned(x).shape == model(x).shape
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    channels = {m.out_channels for m in pruned.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)}
    assert all(count % 4 == 0 for count in channels - {3})
    pruned.train()(x).sum().backward()  # goes on training


def test_channels_without_weight_go_first():
    pytest.importorskip("torch_pruning")
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        for index in (1, 3, 4, 6):
            model[0].weight[index] = 0
            model[0].bias[index] = 0
            model[2].weight[:, index] = 0
    x = torch.randn(1, 2, 6, 6)
    pruned = prune_to(model, x, 0.5, keep=[model[2]], multiple=1)
    assert pruned[0].out_channels == 4
    torch.testing.assert_close(pruned(x), model(x))


def test_what_cannot_be_met_is_refused():
    pytest.importorskip("torch_pruning")
    model, x = network(2), torch.randn(1, 2, 8, 8)
    with pytest.raises(ValueError, match=r"macs 0\.0001: with as many channels gone as can be"):
        prune_to(model, x, 0.0001, keep=[model[-1]])
    with pytest.raises(ValueError, match=r"macs 1\.5: must be a share"):
        prune_to(model, x, 1.5)
    with pytest.raises(ValueError, match="keep: a layer that is no part of the model"):
        prune_to(model, x, 0.5, keep=[nn.Conv2d(1, 1, 1)])


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(InputError, match=r"pip install 'fieldfare-common\[slim\]'"):
        prune_to(network(2), torch.randn(1, 2, 8, 8), 0.5)
