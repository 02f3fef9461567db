# SPDX-License-Identifier: Apache-2.0
"""WMMSE, its single steps, and users with several antennas."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.signals.linear import mrt, normalise, rzf
from fieldfare.wireless.signals.mimo import (
    effective_rows,
    mmse_receivers,
    svd_receivers,
    wmmse_streams,
)
from fieldfare.wireless.signals.rates import rate, sum_rate
from fieldfare.wireless.signals.wmmse import refine, wmmse

SIZES = ("K2_N8", "K4_N8", "K4_N16", "K8_N8", "K8_N16", "K8_N32", "K16_N16", "K16_N64")


def channel(*size: int, seed: int = 0) -> torch.Tensor:
    return rayleigh(size, torch.Generator().manual_seed(seed), torch.complex128)


@pytest.mark.parametrize("size", SIZES)
def test_sum_rates_equal_the_reference(reference: Path, size: str) -> None:
    stored = np.load(reference / "wireless" / f"mumiso_{size}.npz")
    for dtype in (torch.complex64, torch.complex128):
        H = torch.from_numpy(stored["H"]).to(dtype)
        for snr_db in (0, 10, 20):
            W = wmmse(H, 10 ** (snr_db / 10), 1.0).W
            expected = stored[f"rate_wmmse_{snr_db}dB"].sum(-1)
            np.testing.assert_allclose(sum_rate(H, W, 1.0).numpy(), expected, rtol=1e-4)


def test_run_to_the_end_it_equals_the_reference_user_by_user(reference: Path) -> None:
    stored = np.load(reference / "wireless" / "mumiso_K8_N8.npz")
    H, weights = torch.from_numpy(stored["H"]).to(torch.complex128), stored["weights"]
    end = {"tolerance": 1e-10, "max_iterations": 5000}
    plain = wmmse(H, 10.0, **end)
    assert plain.converged.all()
    assert (plain.iterations.numpy() == stored["iters_wmmse_10dB"]).all()
    np.testing.assert_allclose(rate(H, plain.W, 1.0), stored["rate_wmmse_10dB"], atol=1e-6)
    weighted = wmmse(H, 10.0, weights=torch.from_numpy(weights), **end)
    expected = stored["rate_wmmse_weighted_10dB"]
    np.testing.assert_allclose(rate(H, weighted.W, 1.0), expected, atol=1e-6)


def test_restarts_reach_the_best_of_eleven(reference: Path) -> None:
    stored = np.load(reference / "wireless" / "mumiso_K8_N8.npz")
    H = torch.from_numpy(stored["H"])
    one = sum_rate(H, wmmse(H, 100.0).W, 1.0)
    best = wmmse(H, 100.0, restarts=5, generator=torch.Generator().manual_seed(0))
    many = sum_rate(H, best.W, 1.0)
    assert (many >= one).all()
    assert many.mean() > 1.005 * one.mean()
    assert many.numpy().mean() > 0.99 * stored["best_of_11_wmmse_20dB"].mean()


@pytest.mark.parametrize(("users", "antennas"), [(8, 8), (4, 16), (6, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_no_step_lowers_the_sum_rate(users: int, antennas: int, weighted: bool) -> None:
    H = channel(20, users, antennas)
    weights = torch.rand(20, users, dtype=torch.float64) + 0.2 if weighted else None
    W = normalise(channel(20, antennas, users, seed=1), 30.0, "total")
    before = sum_rate(H, W, 1.0, weights)
    for _ in range(30):
        W = refine(H, W, 30.0, weights=weights)
        after = sum_rate(H, W, 1.0, weights)
        assert (after >= before - 1e-10).all()
        before = after


def test_steps_add_up_to_the_run() -> None:
    H = channel(3, 4, 6)
    run = wmmse(H, 10.0, tolerance=0.0, max_iterations=7)
    steps = refine(H, rzf(H, 10.0), 10.0, steps=7)
    torch.testing.assert_close(run.W, steps)
    assert not run.converged.any()
    by_gradients = refine(H, rzf(H, 10.0), 10.0, steps=7, solver="cg")
    torch.testing.assert_close(
        sum_rate(H, by_gradients, 1.0), sum_rate(H, steps, 1.0), rtol=1e-3, atol=0
    )
    assert refine(H, steps, 10.0, steps=0) is steps


def test_batch_equals_one_by_one() -> None:
    H, power = channel(2, 3, 4, 4), torch.tensor([[1.0], [100.0]], dtype=torch.float64)
    together = wmmse(H, power, 0.5)
    assert together.W.shape == (2, 3, 4, 4)
    for row in range(2):
        for column in range(3):
            alone = wmmse(H[row, column], power[row, 0].item(), 0.5)
            torch.testing.assert_close(together.W[row, column], alone.W)
            assert together.iterations[row, column] == alone.iterations


def test_unit_of_the_channel_does_not_matter_even_in_single_precision() -> None:
    H = channel(5, 4, 4).to(torch.complex64)
    far = wmmse(H * 1e-8, 10.0, 1e-16).W
    near = wmmse(H, 10.0).W
    torch.testing.assert_close(sum_rate(H, far, 1.0), sum_rate(H, near, 1.0), rtol=1e-4, atol=0)


def test_equivariant_to_users_and_antennas() -> None:
    H, order = channel(4, 8), torch.tensor([3, 1, 0, 2])
    Q = torch.linalg.qr(channel(8, 8, seed=1)).Q
    W = wmmse(H, 10.0).W
    torch.testing.assert_close(wmmse(H[order], 10.0).W, W[:, order])
    torch.testing.assert_close(wmmse(H @ Q, 10.0).W, Q.mH @ W)


def test_a_single_user_gets_maximum_ratio() -> None:
    H = channel(1, 6)
    torch.testing.assert_close(rate(H, wmmse(H, 2.0).W, 1.0), rate(H, mrt(H, 2.0), 1.0))


def test_refining_is_differentiable() -> None:
    H, W = channel(3, 4), rzf(channel(3, 4), 5.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda W: sum_rate(H, refine(H, W, 5.0, steps=2), 1.0), W)


def test_refining_stays_finite_with_a_user_switched_off() -> None:
    H, W = channel(3, 4).to(torch.complex64), rzf(channel(3, 4), 5.0).to(torch.complex64)
    W[:, 1] = 0
    W.requires_grad_()
    weights = torch.ones(3, dtype=torch.float64)
    refined = refine(H, W, 5.0, steps=3, weights=weights)
    sum_rate(H, refined, 1.0).backward()
    assert torch.isfinite(torch.view_as_real(W.grad)).all()
    assert rate(H, refined, 1.0)[1] < 1e-6  # WMMSE never switches a user on again


def test_one_antenna_a_user_is_the_plain_case() -> None:
    H = channel(3, 4, 1, 6)
    W, receivers = wmmse_streams(H, 1, 10.0, iterations=50)
    streams = sum_rate(effective_rows(H, receivers), W, 1.0)
    torch.testing.assert_close(
        streams, sum_rate(H.squeeze(-2), wmmse(H.squeeze(-2), 10.0).W, 1.0), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("streams", [1, 2])
def test_turns_never_lower_the_rate_of_streams(streams: int) -> None:
    H = channel(4, 3, 2, 8)
    before = torch.zeros(4, dtype=torch.float64)
    for turns in range(6):
        W, receivers = wmmse_streams(H, streams, 10.0, iterations=turns)
        assert W.shape == (4, 8, 3 * streams)
        assert receivers.shape == (4, 3, 2, streams)
        after = sum_rate(effective_rows(H, receivers), W, 1.0)
        assert (after >= before - 1e-9).all()
        before = after


def test_second_receive_antenna_helps() -> None:
    H = channel(20, 4, 2, 8)
    one, both = (
        sum_rate(effective_rows(h, receivers), W, 1.0)
        for h in (H[..., :1, :], H)
        for W, receivers in [wmmse_streams(h, 1, 10.0)]
    )
    assert (both > one).all()


def test_mmse_receiver_beats_any_other() -> None:
    H = channel(3, 2, 8)
    W = rzf(effective_rows(H, svd_receivers(H, 1)), 10.0)
    best = rate(effective_rows(H, mmse_receivers(H, W, 0.5)), W, 0.5)
    for seed in range(20):
        other = torch.nn.functional.normalize(channel(3, 2, 1, seed=seed), dim=-2)
        assert (rate(effective_rows(H, other), W, 0.5) <= best + 1e-12).all()


def test_streams_are_limited_by_antennas() -> None:
    with pytest.raises(ValueError, match="streams 3: a channel of 2 x 8 antennas carries 1 to 2"):
        wmmse_streams(channel(3, 2, 8), 3)
