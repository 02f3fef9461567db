# SPDX-License-Identifier: Apache-2.0
"""One training step of the published objective, tensor by tensor."""

import pytest
import torch

from fieldfare.remote_sensing.super_resolution.networks.diffusion import MeanRevertingSDE
from fieldfare.remote_sensing.super_resolution.networks.model import (
    ModelConfig,
    SuperResolutionModel,
)
from fieldfare.remote_sensing.super_resolution.training import Objective, matching_loss

SDE = MeanRevertingSDE()


@pytest.fixture(scope="module")
def step(reference, tiny):
    """The published numbers, ours, and the network after our backward pass."""
    expected = reference("tiny2_train_step")
    network = tiny("tiny2").train().requires_grad_(True)
    x0, mu, t = (expected[key] for key in ("x0", "mu", "t"))
    state = SDE.noised(x0, mu, t, expected["noise"])
    predicted = network(state, mu, t)
    score = SDE.score_from_noise(predicted, t)
    loss = matching_loss(SDE, predicted, state, mu, x0, t)
    loss.backward()
    ours = {
        "state": state,
        "eps_pred": predicted,
        "score": score,
        "xt_1_expectation": SDE.sde_step_mean(state, mu, score, t),
        "xt_1_optimum": SDE.posterior_mean(state, mu, x0, t),
        "loss": loss.reshape(1),
        "grad.intro.weight": network.intro.weight.grad,
        "grad.ending.weight": network.ending.weight.grad,
    }
    return expected, ours, network


@pytest.mark.parametrize(
    "key",
    [
        "state",
        "eps_pred",
        "score",
        "xt_1_expectation",
        "xt_1_optimum",
        "loss",
        "grad.intro.weight",
        "grad.ending.weight",
    ],
)
def test_tensor_equals_the_published(step, key, assert_close):
    assert_close(step[1][key], step[0][key])


def test_every_gradient_norm_equals_the_published(step):
    expected, _, network = step
    norms = {f"gradnorm.{name}": p.grad.norm() for name, p in network.named_parameters()}
    assert set(norms) == {key for key in expected if key.startswith("gradnorm.")}
    for key, norm in norms.items():
        assert float(norm) == pytest.approx(float(expected[key]), rel=1e-5), key


def test_objective_of_a_noise_model_is_the_published_loss(step):
    expected, _, network = step
    model = SuperResolutionModel(ModelConfig(network.config), network)
    low = torch.nn.functional.avg_pool2d(expected["x0"], 4)
    batch = {"high": expected["x0"], "low": low, "t": expected["t"], "noise": expected["noise"]}
    mu = torch.nn.functional.interpolate(low, scale_factor=4, mode="bicubic")
    state = SDE.noised(expected["x0"], mu, expected["t"], expected["noise"])
    wanted = matching_loss(
        SDE, network(state, mu, expected["t"]), state, mu, expected["x0"], expected["t"]
    )
    torch.testing.assert_close(Objective(model)(model, batch), wanted)
