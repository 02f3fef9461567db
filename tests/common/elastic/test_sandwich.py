# SPDX-License-Identifier: Apache-2.0
"""The sandwich rule: the largest learns the task, all others what it says."""

import pytest
import torch
from torch.nn import functional as F

from fieldfare.common.elastic.mobilenet import Layout, Stage, elastic_classifier, space
from fieldfare.common.elastic.sandwich import SandwichLoss, SandwichTask
from fieldfare.common.elastic.shrink import soft_cross_entropy

LAYOUT = Layout(1, 1, 0.5, (Stage(16, 1, "relu"),), norm="group")


def task(output: torch.Tensor, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return F.cross_entropy(output, batch[1])


def test_the_loss_is_the_largest_ones_task_and_the_others_agreement() -> None:
    genes = space(1, depths=(1, 2), kernels=(3, 5), expansions=(3, 4))
    torch.manual_seed(0)
    net = elastic_classifier(genes, LAYOUT, 3).eval()
    batch = torch.randn(4, 1, 12), torch.tensor([0, 1, 2, 0])
    chosen = []
    original = net.set
    net.set = lambda choice: (chosen.append(dict(choice)), original(choice))[1]
    torch.manual_seed(5)
    loss = SandwichLoss(task, draws=3)(net, batch)
    assert chosen[0] == genes.largest()
    assert chosen[1] == genes.smallest()
    largest, *others = (net.extract(choice)(batch[0]) for choice in chosen)
    wanted = task(largest, batch) + sum(soft_cross_entropy(out, largest) for out in others)
    torch.testing.assert_close(loss, wanted)
    torch.manual_seed(5)
    assert torch.equal(SandwichLoss(task, draws=3)(net, batch), loss)


def test_what_the_largest_says_is_not_pulled_towards_the_others() -> None:
    genes = space(1, depths=(1,), kernels=(3,), expansions=(3, 4))
    torch.manual_seed(0)
    net = elastic_classifier(genes, LAYOUT, 3).eval()
    batch = torch.randn(4, 1, 12), torch.tensor([0, 1, 2, 0])
    grads = []
    for weight in (0.0, 1e3):

        def agree(output: torch.Tensor, taught: torch.Tensor, weight: float = weight):
            return weight * taught.square().sum() + 0 * output.sum()

        net.zero_grad()
        SandwichLoss(task, draws=2, agree=agree)(net, batch).backward()
        grads.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    for silent, loud in zip(*grads, strict=True):
        assert torch.equal(silent, loud)


def test_a_sandwich_has_two_slices() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        SandwichLoss(task, draws=1)
    with pytest.raises(ValueError, match="at least 2"):
        SandwichTask(lambda network, batch: batch, draws=1)


def test_without_labels_every_network_is_trained_on_the_task() -> None:
    genes = space(1, depths=(1, 2), kernels=(3, 5), expansions=(3, 4))
    torch.manual_seed(0)
    net = elastic_classifier(genes, LAYOUT, 3).eval()
    batch = torch.randn(4, 1, 12)
    chosen = []

    def loss(network: torch.nn.Module, given: torch.Tensor) -> torch.Tensor:
        chosen.append(net.choice)
        return network(given).square().mean()

    found = SandwichTask(loss, draws=3)(net, batch)
    assert chosen[:2] == [genes.largest(), genes.smallest()]
    wanted = [net.extract(choice)(batch).square().mean() for choice in chosen]
    torch.testing.assert_close(found, torch.stack(wanted).sum())
