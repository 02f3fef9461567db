# SPDX-License-Identifier: Apache-2.0
"""Delta activation: a worked example, both signs of the gradient, sums of differences, costs."""

import pytest
import torch
from torch import nn

from fieldfare.common.slim.delta import (
    DeltaActivation,
    DeltaLinear,
    change_penalty,
    changes,
)

FRAMES = torch.tensor([[[0.12, 0.4], [0.17, 0.44], [0.33, 0.21], [0.33, 0.2], [-0.5, 0.19]]])
"""(B, T, C)."""
ROUNDED = torch.tensor([[[0.1, 0.4], [0.2, 0.45], [0.3, 0.2], [0.3, 0.2], [0.0, 0.2]]])
"""With thresholds 0.1 and 0.05."""


def activation() -> DeltaActivation:
    found = DeltaActivation(2)
    found.theta.data = torch.tensor([0.1, -0.05])
    return found


def test_the_worked_example():
    q = activation()(FRAMES).detach()
    torch.testing.assert_close(q, ROUNDED)
    d = changes(q)
    expected = torch.tensor([[0.1, 0.4], [0.1, 0.05], [0.1, -0.25], [0.0, 0.0], [-0.3, 0.0]])
    torch.testing.assert_close(d[0], expected)
    assert int((d[0, 1:].abs() > 1e-6).sum()) == 5
    assert float(change_penalty(q)) == pytest.approx(0.1, abs=1e-6)
    assert float(change_penalty(q, fan_out=7)) == pytest.approx(0.7, abs=1e-6)
    torch.testing.assert_close(d.cumsum(1), q)


def test_rounding_passes_gradients_and_the_threshold_gets_the_negative_of_its_own():
    layer, x = activation(), FRAMES.clone().requires_grad_()
    weight = torch.rand(FRAMES.shape) + 0.5
    (layer(x) * weight).sum().backward()
    torch.testing.assert_close(x.grad, weight * (FRAMES > 0))
    steps = torch.tensor([[1.0, 8], [2, 9], [3, 4], [3, 4], [0, 4]])
    true = (weight[0] * steps).sum(0)  # of t in steps * t
    torch.testing.assert_close(layer.theta.grad, -true * torch.tensor([1.0, -1.0]))


def test_a_small_threshold_loses_nothing():
    layer = DeltaActivation(2, start=1e-7)
    torch.testing.assert_close(layer(FRAMES), FRAMES.relu(), rtol=0, atol=1e-6)


def test_the_layer_behind_reads_only_what_changed():
    layer = nn.Linear(2, 3)
    step = DeltaLinear(layer)
    q = activation()(FRAMES).detach()
    found = torch.stack([step(q[:, t]) for t in range(5)], dim=1)
    torch.testing.assert_close(found, layer(q))
    columns = [2, 2, 2, 0, 1]
    assert step.macs == sum(columns) * 3
    error = (found - layer(FRAMES.relu())).abs().amax((0, 1))
    assert (error <= (layer.weight.abs() * torch.tensor([0.05, 0.025])).sum(1) + 1e-6).all()


def test_refreshing_and_resetting_compute_whole_frames():
    layer = nn.Linear(4, 2)
    step = DeltaLinear(layer, refresh=2)
    x = torch.ones(3, 4)
    for _ in range(4):
        torch.testing.assert_close(step(x), layer(x))
    assert step.macs == 2 * 3 * 4 * 2
    with pytest.raises(ValueError, match="call reset"):
        step(x), step(x[:1])
    step.reset()
    assert torch.equal(step(x[:1]), layer(x[:1]))
    with pytest.raises(ValueError, match="refresh 0"):
        DeltaLinear(layer, 0)
