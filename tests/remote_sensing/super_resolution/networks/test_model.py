# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfare.remote_sensing.super_resolution.networks.diffusion import MeanRevertingSDE
from fieldfare.remote_sensing.super_resolution.networks.ediffsr import EDiffSRConfig
from fieldfare.remote_sensing.super_resolution.networks.model import (
    ModelConfig,
    SuperResolutionModel,
    enlarge,
    initialise_for_velocity,
    noise_from_x0,
    velocity_target,
    x0_from_output,
)

SDE = MeanRevertingSDE()
SMALL = EDiffSRConfig(width=16, encoder_blocks=(1, 1), decoder_blocks=(1, 1))


def images(count):
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, 1, 3, 5, 7, generator=generator, dtype=torch.float64)


def state_and_outputs(x0, mu, noise, t):
    """x_t at a real time, and the perfect output of either prediction, from their definitions."""
    moments = SDE.moments(t)
    alpha, sigma = float(moments.alpha), float(moments.sigma)
    x = mu + alpha * (x0 - mu) + sigma * noise
    return x, {"noise": noise, "velocity": alpha * noise - sigma * (x0 - mu) / SDE.max_sigma**2}


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 100), st.sampled_from(["noise", "velocity"]))
def test_perfect_output_gives_back_image_and_noise_at_any_time(t, prediction):
    x0, mu, noise = images(3)
    x, outputs = state_and_outputs(x0, mu, noise, t)
    found = x0_from_output(prediction, outputs[prediction], x, mu, t, SDE)
    torch.testing.assert_close(found, x0, atol=1e-9, rtol=0)
    torch.testing.assert_close(noise_from_x0(found, x, mu, t, SDE), noise, atol=1e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 100))
def test_noise_and_image_name_the_same_state(t):
    output, x, mu = images(3)
    x0 = x0_from_output("noise", output, x, mu, t, SDE)
    torch.testing.assert_close(noise_from_x0(x0, x, mu, t, SDE), output, atol=1e-6, rtol=0)


@pytest.mark.parametrize("t", [1, 50, 100])
def test_velocity_target_is_the_velocity_of_the_tables(t, assert_close):
    x0, mu, noise = images(3).float()
    target = velocity_target(x0, mu, noise, torch.tensor([t]), SDE)
    assert_close(target, state_and_outputs(x0, mu, noise, t)[1]["velocity"], 5e-6)


def test_velocity_at_the_end_is_minus_the_residual(assert_close):
    x0, mu, noise = images(3)
    target = velocity_target(x0, mu, noise, torch.tensor([100]), SDE)
    assert_close(target, -(x0 - mu) / SDE.max_sigma, 0.006)


def test_unknown_prediction_is_refused():
    x = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="got 'score'"):
        ModelConfig(prediction="score")
    with pytest.raises(ValueError, match="got 'score'"):
        x0_from_output("score", x, x, x, 5, SDE)


def test_enlarging_equals_the_published_condition(reference, assert_close):
    expected = reference("resize")
    found = enlarge(expected["lr_matlab_bicubic_x4"][None], 4)[0]
    assert_close(found, expected["up_torch_bicubic_x4"], 1e-6)


def test_condition_of_the_published_trajectories(reference, assert_close):
    expected = reference("tiny2_trajectories_short")
    assert_close(enlarge(expected["lr"], 4), expected["mu"], 1e-6)


def test_fresh_velocity_model_restores_the_bicubic_image(assert_close):
    torch.manual_seed(0)
    model = SuperResolutionModel(ModelConfig(SMALL, prediction="velocity"))
    before = model.network.intro.weight.detach().clone()
    initialise_for_velocity(model)
    mu, noise, _ = images(3).float()
    x = mu + model.sde.max_sigma * noise
    output = model(x, mu, torch.tensor([100]))
    assert output.abs().max() == 0
    x0 = x0_from_output("velocity", output, x, mu, 100, model.sde)
    assert_close(x0, mu, 0.005)
    assert torch.equal(model.network.intro.weight[:, 3:], before[:, 3:])
    assert (model.network.intro.weight[:, :3].abs() >= before[:, :3].abs()).all()


def test_config_survives_json_and_names_its_diffusion():
    config = ModelConfig(SMALL, "velocity", 40, "linear", 0.01, 0.1, 6)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    sde = config.sde()
    assert (sde.steps, sde.schedule, sde.eps, sde.max_sigma) == (40, "linear", 0.01, 0.1)


def test_output_is_float32_under_autocast():
    model = SuperResolutionModel(ModelConfig(SMALL))
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert model(x, x, torch.tensor([3])).dtype == torch.float32
