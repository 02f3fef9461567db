# SPDX-License-Identifier: Apache-2.0
"""SuperTickets: sparsity to one weight at each event; what may come back, and what may not."""

import pytest
import torch
from torch import nn

from fieldfare.common.slim.tickets import Tickets, ratio, scale_penalty


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
    )


def tickets(model: nn.Sequential, *, reset: bool = False) -> Tickets:
    return Tickets(
        model, {"first": model[1], "second": model[4]}, {"first": 3e6, "second": 1e5}, reset=reset
    )


def train(model: nn.Sequential, found: Tickets, steps: int = 3) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        model(torch.randn(2, 3, 6, 6)).square().sum().backward()
        optimiser.step()
        found.hold()


def zeros(model: nn.Sequential) -> int:
    return sum(int((layer.weight == 0).sum()) for layer in (model[0], model[3]))


def test_the_schedule_rises_by_tenths_to_its_target() -> None:
    assert [round(ratio(epoch, 0.9), 3) for epoch in (0, 24, 25, 60, 225, 349)] == [
        *(0, 0, 0.1, 0.2, 0.9, 0.9)
    ]
    assert ratio(300, 0.35) == 0.35


def test_sparsity_is_exact_at_each_event_and_dropped_weights_stay_out() -> None:
    model = network()
    found, total = tickets(model), sum(layer.weight.numel() for layer in (model[0], model[3]))
    dropped = torch.zeros(0)
    for share in (0.1, 0.2, 0.5):
        found.prune(share)
        assert zeros(model) == round(share * total)
        now = torch.cat([~mask.flatten() for mask in found.kept.values()])
        assert not len(dropped) or bool((now | ~dropped.bool()).all())
        dropped = now
        train(model, found)
        assert zeros(model) == round(share * total)


def test_with_reset_weights_grow_again_and_channels_do_not() -> None:
    model = network()
    found = tickets(model, reset=True)
    found.prune(0.5)
    train(model, found)
    assert zeros(model) == 0
    model[1].weight.data[2] = 1e-4
    assert found.drop_channels() == 1
    train(model, found)
    assert float(model[1].weight[2]) == float(model[1].bias[2]) == 0
    assert int((~found.channels["first"]).sum()) == 1


def test_channels_go_only_where_they_save_enough() -> None:
    model = network()
    model[4].weight.data[:3] = 1e-4
    found = tickets(model)
    assert found.drop_channels() == 0  # 0.3 million operations
    assert found.drop_channels(least_saved=1e5) == 3


def test_the_penalty_makes_what_costs_most_fade_first() -> None:
    model = network()
    norms, macs = {"first": model[1], "second": model[4]}, {"first": 3e6, "second": 1e5}
    full = scale_penalty(norms, macs, 1.0)
    assert float(scale_penalty(norms, macs, 0.5)) == pytest.approx(float(full) / 2)
    full.backward()
    dear, cheap = model[1].weight.grad, model[4].weight.grad
    assert dear is not None
    assert cheap is not None
    assert float(dear[0] / cheap[0]) == pytest.approx(30)
