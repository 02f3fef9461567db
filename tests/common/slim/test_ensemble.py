# SPDX-License-Identifier: Apache-2.0
"""Ensembles with a shared trunk: counted once, taught by the mean; deep networks put together."""

import copy

import pytest
import torch
from torch import nn

from fieldfare.common.efficiency import cost
from fieldfare.common.slim.assemble import Incubation, Staged, incubate
from fieldfare.common.slim.ensemble import Ensemble, disagreement


def test_the_trunk_is_counted_once_and_taught_by_the_mean_of_the_branches():
    trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    branches = [nn.Linear(8, 3) for _ in range(3)]
    net = Ensemble(trunk, branches)
    x, y = torch.randn(5, 6), torch.randint(3, (5,))
    assert cost(net, (1, 6)).macs == 6 * 8 + 3 * 8 * 3
    torch.testing.assert_close(net(x), torch.stack([b(trunk(x)) for b in branches]).mean(0))
    loss = nn.functional.cross_entropy
    sum(loss(logits, y) for logits in net.each(x)).backward()
    found = trunk[0].weight.grad.clone()
    alone = []
    for branch in branches:
        trunk.zero_grad()
        loss(branch(trunk(x)), y).backward()
        alone.append(trunk[0].weight.grad.clone())
    torch.testing.assert_close(found, torch.stack(alone).mean(0), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="at least one branch"):
        Ensemble(trunk, [])


def test_disagreement_is_the_mean_over_pairs():
    says = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 1], [0, 2, 2, 1]])
    assert disagreement(nn.functional.one_hot(says, 3).float()) == pytest.approx((1 + 1 + 2) / 12)
    assert disagreement(torch.rand(1, 4, 3)) == 0


def meta() -> Staged:
    stages = [nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh()) for _ in range(3)]
    return Staged(nn.Linear(4, 6), stages, nn.Linear(6, 2))


def deep(_: int = 0) -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(4)))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_only_the_stage_in_place_changes(index):
    own = Incubation(meta(), deep(), index).train()
    before = copy.deepcopy(own.state_dict())
    optimizer = torch.optim.SGD(own.trained(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        own(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    changed = {n for n, t in own.state_dict().items() if not torch.equal(t, before[n])}
    allowed = ("deep.", "meta.begin." if index == 0 else "-", "meta.end." if index == 2 else "-")
    assert changed == {name for name in before if name.startswith(allowed)}


def test_the_assembled_network_is_the_deep_one():
    network = meta()
    before = copy.deepcopy(network.state_dict())
    seen = []

    def train(own: Incubation) -> None:
        seen.append(own.index)
        optimizer = torch.optim.SGD(own.train().trained(), 0.1)
        own(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()

    found = incubate(network, deep, train)
    assert seen == [0, 1, 2]
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())
    target = Staged(nn.Linear(4, 6), [deep() for _ in range(3)], nn.Linear(6, 2))
    count = sum(p.numel() for p in target.parameters())
    assert sum(p.numel() for p in found.parameters() if p.requires_grad) == count
    assert not torch.equal(found.begin.weight, before["begin.weight"])
    assert found(torch.randn(3, 4)).shape == (3, 2)


def test_a_stage_in_the_middle_keeps_fewer_activations_than_the_whole():
    stages = [deep() for _ in range(3)]
    whole = Staged(nn.Linear(4, 6), stages, nn.Linear(6, 2))
    part = Incubation(meta(), deep(), 1)
    shape = (64, 4)
    assert cost(part.eval(), shape).activation_bytes < cost(whole.eval(), shape).activation_bytes


def test_a_stage_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="stage 3: the meta network has 3"):
        Incubation(meta(), deep(), 3)
