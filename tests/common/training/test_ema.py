# SPDX-License-Identifier: Apache-2.0
"""The average against numbers worked out by hand."""

import copy

import pytest
import torch
from torch import nn

from fieldfare.common.training import ExponentialMovingAverage


def at(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


def test_average_of_two_updates_worked_out_by_hand() -> None:
    """Decays 1/10 and 2/11: 0.1 * 1 + 0.9 * 2 = 1.9; 2/11 * 1.9 + 9/11 * 3 = 2.8."""
    model = nn.Linear(1, 1, bias=False)
    at(model, 1)
    ema = ExponentialMovingAverage(model, decay=0.99)
    at(model, 2)
    ema.update(model)
    assert float(ema.shadow["weight"]) == pytest.approx(1.9)
    at(model, 3)
    ema.update(model)
    assert float(ema.shadow["weight"]) == pytest.approx(2.8)


def test_decay_grows_no_further_than_asked() -> None:
    """At a decay of 0.05, below the first of the growing ones: 0.05 * 1 + 0.95 * 2 = 1.95."""
    model = nn.Linear(1, 1, bias=False)
    at(model, 1)
    ema = ExponentialMovingAverage(model, decay=0.05)
    at(model, 2)
    ema.update(model)
    assert float(ema.shadow["weight"]) == pytest.approx(1.95)


def test_buffers_are_copied() -> None:
    model = nn.BatchNorm1d(2)
    ema = ExponentialMovingAverage(model, decay=0.99)
    model(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    ema.update(model)
    assert torch.equal(ema.shadow["running_mean"], model.running_mean)
    assert int(ema.shadow["num_batches_tracked"]) == 1


def test_applied_puts_the_models_own_weights_back_also_after_an_error() -> None:
    model = nn.Linear(1, 1, bias=False)
    at(model, 1)
    ema = ExponentialMovingAverage(model, decay=0.99)
    at(model, 2)

    def use() -> None:
        with ema.applied(model):
            assert model.weight.item() == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert model.weight.item() == 2


def test_state_goes_on_where_it_was() -> None:
    model = nn.Linear(2, 2)
    ema = ExponentialMovingAverage(model, decay=0.9)
    ema.update(model)
    other = ExponentialMovingAverage(nn.Linear(2, 2), decay=0.9)
    other.load_state_dict(copy.deepcopy(ema.state_dict()))
    for average in (ema, other):
        at(model, 5)
        average.update(model)
    assert all(torch.equal(ema.shadow[name], other.shadow[name]) for name in ema.shadow)
