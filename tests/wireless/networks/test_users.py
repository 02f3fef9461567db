# SPDX-License-Identifier: Apache-2.0
"""The whole default method: its guard, user selection, symmetries, and its twin for ONNX."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.networks.models import load_precoder_network
from fieldfare.wireless.networks.precoder import IcgnnPrecoder
from fieldfare.wireless.networks.real import RealPrecoder
from fieldfare.wireless.networks.users import precode_users
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.precoding.methods import Precoder, baseline
from fieldfare.wireless.signals.linear import rzf
from fieldfare.wireless.signals.rates import squared_magnitude, sum_rate

SIZES = [(1, 1), (2, 2), (6, 3), (8, 8), (4, 16), (12, 4)]
SNRS_DB = [-20, 0, 20, 40, 60]


@pytest.fixture(scope="module")
def precoder() -> Precoder:
    return load_precoder("icgnn_precoder")


def channel(*size: int, seed: int = 0, dtype: Any = torch.complex64) -> Tensor:
    return rayleigh(size, torch.Generator().manual_seed(seed), dtype)


def levels(H: Tensor, snr_db: float) -> tuple[Tensor, Tensor]:
    one = H.real.new_ones(len(H))
    return one * 10 ** (snr_db / 10), one


def exact(H: Tensor, W: Tensor) -> Tensor:
    return sum_rate(H.to(torch.complex128), W.to(torch.complex128), 1.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_it_is_never_below_rzf_nor_below_greedy_selection(
    precoder: Precoder, size: tuple[int, int], dtype: torch.dtype
) -> None:
    H = channel(32, *size, dtype=dtype)
    for snr in SNRS_DB:
        power, noise = levels(H, snr)
        W = precoder(H, power, noise, None).W
        safe = rzf(H.to(torch.complex128), power, noise)
        assert W.dtype == dtype
        assert (exact(H, W) >= exact(H, safe) * (1 - 1e-6)).all()
        greedy = baseline("greedy")(H, power, noise, None).W
        assert (exact(H, W) >= exact(H, greedy) * (1 - 1e-6)).all()
        assert (squared_magnitude(W).sum((-2, -1)) <= power * (1 + 2e-6)).all()


def test_channels_of_low_rank_are_served(precoder: Precoder) -> None:
    H = channel(16, 8, 3) @ channel(16, 3, 8, seed=1)
    for snr in SNRS_DB:
        power, noise = levels(H, snr)
        W = precoder(H, power, noise, None).W
        greedy = baseline("greedy")(H, power, noise, None).W
        assert (exact(H, W) >= exact(H, greedy) * (1 - 1e-6)).all()


def test_users_at_one_place_are_selected(precoder: Precoder) -> None:
    H = channel(16, 6, 8)
    H[:, 1], H[:, 4] = 1j * H[:, 0], 0.5 * H[:, 3]
    for snr in SNRS_DB:
        power, noise = levels(H, snr)
        W = precoder(H, power, noise, None).W
        greedy = baseline("greedy")(H, power, noise, None).W
        assert (exact(H, W) >= exact(H, greedy) * (1 - 1e-6)).all()


@pytest.mark.parametrize("size", [(6, 3), (8, 8)])
def test_symmetries_hold_in_single_precision(precoder: Precoder, size: tuple[int, int]) -> None:
    H = channel(32, *size)
    order = torch.randperm(size[0], generator=torch.Generator().manual_seed(1))
    Q = torch.linalg.qr(channel(size[1], size[1], seed=2, dtype=torch.complex128)).Q
    rotated = (H.to(torch.complex128) @ Q).to(H.dtype)
    for snr in SNRS_DB:
        power, noise = levels(H, snr)
        W = precoder(H, power, noise, None).W
        scale = float(power[0].sqrt())
        swapped = precoder(H[:, order], power, noise, None).W
        torch.testing.assert_close(swapped, W[..., order], rtol=0, atol=1e-4 * scale)
        turned = precoder(rotated, power, noise, None).W
        torch.testing.assert_close(turned, Q.mH.to(W) @ W, rtol=0, atol=1e-4 * scale)


def test_refinement_never_lowers_the_rate() -> None:
    H = channel(16, 8, 8)
    for snr in SNRS_DB:
        power, noise = levels(H, snr)
        plain = load_precoder("icgnn_precoder")(H, power, noise, None).W
        refined = load_precoder("icgnn_precoder", refinement=3)(H, power, noise, None).W
        assert (exact(H, refined) >= exact(H, plain) * (1 - 1e-2)).all()
        assert exact(H, refined).mean() >= exact(H, plain).mean() * (1 - 1e-6)


def test_untrained_it_selects_users_too() -> None:
    torch.manual_seed(0)
    H = channel(4, 12, 4)
    power, noise = levels(H, 30)
    W, _ = precode_users(IcgnnPrecoder(), H, power, noise)
    greedy = baseline("greedy")(H, power, noise, None).W
    assert (exact(H, W) >= exact(H, greedy) * (1 - 1e-6)).all()
    bare = precode_users(IcgnnPrecoder(), H, power, noise, guard=False)
    assert not bare.guarded.any()


@pytest.mark.parametrize("size", [(1, 4), (8, 8), (12, 4)])
def test_the_real_twin_keeps_power_and_rate(precoder: Precoder, size: tuple[int, int]) -> None:
    network, _ = load_precoder_network("icgnn_precoder")
    twin = RealPrecoder(network).eval()
    H = channel(8, *size)
    for snr in SNRS_DB:
        power, noise = levels(H, snr)
        with torch.no_grad():
            W = torch.view_as_complex(twin(torch.view_as_real(H), power, noise).contiguous())
        assert (squared_magnitude(W).sum((-2, -1)) <= power * (1 + 2e-6)).all()
        wanted = precoder(H, power, noise, None).W
        assert exact(H, W).mean() >= 0.97 * exact(H, wanted).mean()


def test_without_selection_it_is_faster_not_better_and_still_guarded() -> None:
    H = channel(16, 12, 4)
    quick = load_precoder("icgnn_precoder", select=False)
    for snr in SNRS_DB:
        power, noise = levels(H, snr)
        W = quick(H, power, noise, None).W
        both = load_precoder("icgnn_precoder")(H, power, noise, None).W
        safe = rzf(H.to(torch.complex128), power, noise)
        assert (exact(H, W) >= exact(H, safe) * (1 - 1e-6)).all()
        assert (exact(H, both) >= exact(H, W) * (1 - 1e-6)).all()
        whole = precode_users(
            load_precoder_network("icgnn_precoder")[0], H, power, noise, select=False
        )
        torch.testing.assert_close(exact(H, whole.W), exact(H, W), rtol=1e-3, atol=0)
