# SPDX-License-Identifier: Apache-2.0
import math
from itertools import pairwise

import pytest
import torch

from fieldfare.remote_sensing.super_resolution.networks.diffusion import MeanRevertingSDE
from fieldfare.remote_sensing.super_resolution.networks.model import velocity_target
from fieldfare.remote_sensing.super_resolution.sampling.solvers import (
    CLIP_MARGIN,
    START_LOG_SNR,
    multistep,
    published,
    sample,
    solver_times,
)

SDE = MeanRevertingSDE()
SAMPLERS = ["sde", "ode", "posterior"]


def gaussian_noise(stream):
    return torch.randn(1, 3, 6, 8, generator=torch.Generator().manual_seed(stream))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("name", "first"), [("t5to1", 5), ("t100to96", 100)])
def test_five_steps_equal_the_published(sampler, name, first, reference, tiny, assert_close):
    network = tiny("tiny2", "trained_state_dict")
    expected = reference("tiny2_trajectories_short")
    x, mu = expected["x_init"], expected["mu"]
    noise = iter(expected["step_noise"])
    for number, t in enumerate(range(first, first - 5, -1)):
        x = published(
            lambda x, t: network(x, mu, torch.tensor(t)),
            x,
            mu,
            SDE,
            lambda _: next(noise),
            sampler,
            range(t, t - 1, -1),
        )
        assert_close(x, expected[f"{sampler}.{name}"][number], 2e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_hundred_steps_equal_the_published(sampler, reference, tiny, assert_close):
    network = tiny("tiny2", "trained_state_dict")
    expected = reference("tiny2_trajectories")
    steps = iter(expected["step_noise_full100"])
    found = sample(
        lambda x, t: network(x, expected["mu"], torch.tensor(t)),
        expected["mu"],
        SDE,
        lambda stream: next(steps) if stream else expected["init_noise"],
        prediction="noise",
        sampler=sampler,
    )
    assert_close(found, expected[f"{sampler}.full100.final"], 1e-5)


class GaussianImages:
    """Clean images normal about mu + mean with a given spread: denoiser and flow in closed form."""

    mean, spread = 0.05, 0.1

    def __init__(self, mu):
        self.mu = mu

    def denoise(self, x, t):
        moments = SDE.moments(t)
        gain = moments.alpha * self.spread**2 / self._variance(moments)
        return self.mu + self.mean + gain * (x - self.mu - moments.alpha * self.mean)

    def flow(self, x, t, s):
        """Where the probability-flow ODE leads from x at t to s: the standardised state stays."""
        now = SDE.moments(t)
        standard = (x - self.mu - now.alpha * self.mean) / self._variance(now).sqrt()
        if s == 0:
            return self.mu + self.mean + self.spread * standard
        then = SDE.moments(s)
        return self.mu + then.alpha * self.mean + self._variance(then).sqrt() * standard

    def _variance(self, moments):
        return moments.alpha**2 * self.spread**2 + moments.sigma**2


def test_solver_converges_at_second_order():
    """Solved from t = 100 to 5 in ever more steps; the last one, to 0, is the same for all."""
    mu, stop = torch.rand(1, 3, 6, 8, dtype=torch.float64), 5.0
    images = GaussianImages(mu)
    x = mu + SDE.max_sigma * gaussian_noise(0).double()
    wanted = images.denoise(images.flow(x, 100.0, stop), stop)
    errors = []
    for steps in (25, 50, 100, 200):
        times = [100 - (100 - stop) * step / steps for step in range(steps + 1)]
        found = multistep(images.denoise, x, mu, SDE, [*times, 0.0])
        errors.append(float((found - wanted).square().mean().sqrt()))
    ratios = [coarse / fine for coarse, fine in pairwise(errors)]
    assert all(3.4 < ratio < 4.8 for ratio in ratios), (errors, ratios)
    assert errors[-1] < 5e-5


def test_twenty_solver_steps_beat_a_hundred_of_the_published_ode():
    mu = torch.rand(1, 3, 6, 8, dtype=torch.float64)
    images = GaussianImages(mu)
    x = mu + SDE.max_sigma * gaussian_noise(0).double()
    wanted = images.flow(x, 100.0, 0)

    def predict_noise(x, t):
        moments = SDE.moments(t)
        return (x - mu - moments.alpha * (images.denoise(x, t) - mu)) / moments.sigma

    euler = published(predict_noise, x, mu, SDE, gaussian_noise, "ode", range(100, 0, -1))
    solved = multistep(images.denoise, x, mu, SDE, solver_times(SDE, 20, "velocity"))
    assert (solved - wanted).square().mean() < (euler - wanted).square().mean()


def test_one_velocity_step_is_the_network_output_rearranged(assert_close):
    mu, output = torch.full((1, 3, 6, 8), 0.5), 0.1 * gaussian_noise(5)
    moments = SDE.moments(100)
    x = mu + SDE.max_sigma * gaussian_noise(0)
    seen = []

    def predict(state, t):
        seen.append((state, t))
        return output

    found = sample(predict, mu, SDE, gaussian_noise, prediction="velocity", steps=1)
    assert [t for _, t in seen] == [100.0]
    assert torch.equal(seen[0][0], x)
    expected = mu - float(moments.sigma) * output + float(moments.alpha) * (x - mu)
    assert_close(found, expected, 1e-7)


@pytest.mark.parametrize("sampler", [*SAMPLERS, "multistep"])
@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_a_network_that_knows_the_image_restores_it(sampler, prediction):
    x0, mu = 0.2 + 0.6 * torch.rand(2, 1, 3, 6, 8, dtype=torch.float64)

    def predict(x, t):
        moments = SDE.moments(t)
        noise = (x - mu - moments.alpha * (x0 - mu)) / moments.sigma
        velocity = moments.alpha * noise - moments.sigma * (x0 - mu) / SDE.max_sigma**2
        return noise if prediction == "noise" else velocity

    found = sample(predict, mu, SDE, gaussian_noise, prediction=prediction, sampler=sampler)
    error = float((found - x0).abs().max())
    # the published rules leave their last step's noise, and Euler's error, behind
    assert error < {"sde": 0.06, "ode": 0.03, "posterior": 1e-4, "multistep": 1e-9}[sampler]


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_network_calls_and_times(prediction):
    times = []

    def predict(x, t):
        times.append(t)
        return torch.zeros_like(x)

    mu = torch.full((1, 3, 6, 8), 0.5)
    for sampler, count in (("multistep", 7), ("sde", 100), ("ode", 100), ("posterior", 100)):
        times.clear()
        sample(predict, mu, SDE, gaussian_noise, prediction=prediction, sampler=sampler, steps=7)
        assert len(times) == count
        assert times == sorted(times, reverse=True)
        assert all(isinstance(t, float) and 0 < t <= 100 for t in times)


def test_noise_models_start_where_the_signal_can_be_seen():
    assert solver_times(SDE, 4, "velocity") == [100, 75, 50, 25, 0]
    start = solver_times(SDE, 4, "noise")[0]
    log_snr = float(SDE.moments(start).log_snr) + math.log(SDE.max_sigma)
    assert START_LOG_SNR <= log_snr < START_LOG_SNR + 0.1
    assert start < 100


def test_estimates_are_kept_near_the_range_of_images():
    mu = torch.full((1, 3, 6, 8), 0.5)
    wild = sample(
        lambda x, t: 1e3 * torch.ones_like(x),
        mu,
        SDE,
        gaussian_noise,
        prediction="velocity",
        steps=3,
    )
    assert wild.min() == pytest.approx(-CLIP_MARGIN)
    assert wild.max() <= 1 + CLIP_MARGIN


def test_perfect_velocity_of_the_training_target_is_solved_in_one_step(assert_close):
    x0, mu = 0.2 + 0.6 * torch.rand(2, 1, 3, 6, 8)
    target = velocity_target(x0, mu, gaussian_noise(0), torch.tensor([100]), SDE)
    found = sample(lambda x, t: target, mu, SDE, gaussian_noise, prediction="velocity", steps=1)
    # the start is pure noise, the training state keeps alpha_T = 0.005 of the residual
    assert_close(found, x0, 0.005)


def test_wrong_arguments_are_refused():
    mu = torch.full((1, 3, 6, 8), 0.5)

    def run(**wrong):
        arguments = {"prediction": "noise"} | wrong
        sample(lambda x, t: torch.zeros_like(x), mu, SDE, gaussian_noise, **arguments)

    with pytest.raises(ValueError, match="got 'euler'"):
        run(sampler="euler")
    with pytest.raises(ValueError, match="got 'score'"):
        run(prediction="score")
    with pytest.raises(ValueError, match="got 0"):
        run(steps=0)
    with pytest.raises(ValueError, match="last time must be 0"):
        multistep(lambda x, t: x, mu, mu, SDE, [100.0, 50.0])


def test_the_last_network_call_is_at_the_last_time():
    assert solver_times(SDE, 3, "velocity", last_time=80.0) == [100, 90, 80, 0]
    assert solver_times(SDE, 1, "velocity", last_time=80.0) == [100, 0]
    assert solver_times(SDE, 4, "velocity") == [100, 75, 50, 25, 0]
