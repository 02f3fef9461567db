# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfare.remote_sensing.super_resolution.networks.diffusion import (
    MeanRevertingSDE,
    theta_schedule,
)

SDE = MeanRevertingSDE()


@pytest.mark.parametrize(
    ("steps", "schedule", "eps"),
    [
        (100, "cosine", 0.005),
        (100, "linear", 0.01),
        (100, "constant", 0.005),
        (10, "cosine", 0.005),
    ],
)
def test_tables_equal_the_published(steps, schedule, eps, reference, assert_close):
    expected, prefix = reference("sde_tables"), f"T{steps}_{schedule}_eps{eps}."
    sde = MeanRevertingSDE(steps, schedule, eps, 50)
    for table in ("thetas", "thetas_cumsum", "sigmas", "sigma_bars"):
        assert_close(getattr(sde, table), expected[prefix + table], 1e-7)
    assert sde.dt == pytest.approx(expected[prefix + "dt"].item(), rel=1e-6)
    assert sde.max_sigma == pytest.approx(expected[prefix + "max_sigma"].item(), rel=1e-7)


def test_published_schedule_ends_at_alpha_0_005_and_sigma_0_196076():
    assert SDE.alphas[0] == 1
    assert SDE.sigma_bars[0] == 0
    assert float(SDE.alphas[100]) == pytest.approx(0.005, rel=1e-5)
    assert float(SDE.sigma_bars[100]) == pytest.approx(0.196076, abs=1e-6)
    assert float(SDE.sigma_bars[1]) == pytest.approx(0.0036826, abs=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_moments_equal_the_tables_at_whole_times(schedule):
    sde = MeanRevertingSDE(40, schedule)
    moments = [sde.moments(t) for t in range(1, 41)]
    alpha = torch.stack([m.alpha for m in moments]).float()
    sigma = torch.stack([m.sigma for m in moments]).float()
    torch.testing.assert_close(alpha, sde.alphas[1:], atol=1e-6, rtol=1e-5)
    # the table's 1 - exp loses digits near zero, as the published one does
    torch.testing.assert_close(sigma, sde.sigma_bars[1:], atol=1e-6, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_signal_falls_and_noise_grows_with_time(first, second):
    early, late = (SDE.moments(t) for t in sorted((first, second)))
    assert late.alpha <= early.alpha
    assert late.sigma >= early.sigma
    assert late.log_snr <= early.log_snr
    assert float(late.alpha**2 + (late.sigma / SDE.max_sigma) ** 2) == pytest.approx(1, abs=1e-9)


def test_noise_gives_back_the_clean_image(assert_close):
    x0, mu, noise = torch.rand(3, 2, 3, 4, 4, dtype=torch.float64)
    t = torch.tensor([1, 60])
    x = SDE.noised(x0, mu, t, noise)
    assert_close(SDE.x0_from_noise(x, mu, noise, t), x0, 1e-12)
    score = SDE.score_from_noise(noise, t)
    assert_close(score, -noise / SDE.sigma_bars[t].double().view(2, 1, 1, 1), 1e-12)


@pytest.mark.parametrize("t", [1, 2, 37, 100])
def test_posterior_step_leads_from_one_marginal_to_the_one_before(t, assert_close):
    x0, mu = torch.rand(2, 1, 3, 4, 4)
    none = torch.zeros_like(mu)
    now, before = (SDE.noised(x0, mu, torch.tensor([s]), none) for s in (t, t - 1))
    # 1 - alpha^2 loses digits in float32 at small t, here as in the published code
    assert_close(SDE.posterior_mean(now, mu, x0, t), before, 1e-4)
    shrink = SDE.posterior_mean(now + 1, mu, x0, t) - SDE.posterior_mean(now, mu, x0, t)
    variance = (shrink * SDE.sigma_bars[t]) ** 2 + SDE.posterior_std(t, mu) ** 2
    assert_close(variance, torch.full_like(variance, SDE.sigma_bars[t - 1].item() ** 2), 2e-6)


def test_reverse_step_differs_from_the_flow_by_half_the_score(assert_close):
    x, mu, score = torch.rand(3, 1, 3, 4, 4)
    difference = SDE.sde_step_mean(x, mu, score, 30) - SDE.ode_step(x, mu, score, 30)
    assert_close(difference, 0.5 * SDE.sde_step_std(30, x) ** 2 * score, 1e-6)


def test_sigma_of_one_or_more_means_grey_levels():
    assert MeanRevertingSDE(max_sigma=50).max_sigma == MeanRevertingSDE().max_sigma
    assert MeanRevertingSDE(max_sigma=0.5).max_sigma == 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "got 0"),
        ({"schedule": "quadratic"}, "got 'quadratic'"),
        ({"eps": 1.5}, "got 1.5"),
        ({"max_sigma": -2}, "got -2"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MeanRevertingSDE(**wrong)


@pytest.mark.parametrize("t", [0, -1, 100.5])
def test_moments_outside_the_schedule_are_refused(t):
    with pytest.raises(ValueError, match=f"got {t}"):
        SDE.moments(t)


def test_schedule_has_one_value_a_time():
    assert theta_schedule("cosine", 7).shape == (8,)
