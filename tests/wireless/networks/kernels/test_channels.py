# SPDX-License-Identifier: Apache-2.0
"""The compiled loops give what torch gives, whichever channels stand beside each other."""

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.wireless.channels.rayleigh import path_gains, rayleigh
from fieldfare.wireless.networks.kernels.channels import Channels, compile_network, rates
from fieldfare.wireless.networks.kernels.users import precode_compiled
from fieldfare.wireless.networks.kernels.vectors import LANES, exp, load, log, store
from fieldfare.wireless.networks.models import load_precoder_network
from fieldfare.wireless.networks.precoder import IcgnnPrecoder, precode
from fieldfare.wireless.networks.users import precode_users
from fieldfare.wireless.signals.linear import mrt, rzf, zf
from fieldfare.wireless.signals.rates import rate, sum_rate
from fieldfare.wireless.signals.selection import greedy_users
from fieldfare.wireless.signals.waterfilling import zf_waterfilling
from fieldfare.wireless.signals.wmmse import wmmse

SIZES = [(1, 1), (1, 4), (3, 8), (8, 8), (7, 5), (16, 16)]


def channel(*size: int, seed: int = 0) -> Tensor:
    return rayleigh(size, torch.Generator().manual_seed(seed), torch.complex128)


def levels(count: int) -> tuple[Tensor, Tensor]:
    """From -20 to 40 dB."""
    snr = torch.linspace(-20, 40, count, dtype=torch.float64)
    return 3 * 10 ** (snr / 10), torch.full((count,), 3.0, dtype=torch.float64)


@pytest.fixture(scope="module")
def network() -> IcgnnPrecoder:
    return load_precoder_network("icgnn_precoder")[0].double()


@numba.njit
def _both(x, logarithms, exponentials, count):  # type: ignore[no-untyped-def]
    for index in range(count):
        store(logarithms, index, log(load(x, index)))
        store(exponentials, index, exp(load(x, index)))


def test_logarithm_and_exponential_are_those_of_numpy() -> None:
    draw = np.random.default_rng(0)
    x = np.concatenate(
        [10 ** draw.uniform(-280, 2.8, 800), 1 + draw.uniform(-1e-3, 1e-3, 792), np.arange(1.0, 9)]
    )
    logarithms, exponentials = np.empty_like(x), np.empty_like(x)
    _both(x, logarithms, exponentials, len(x) // LANES)
    np.testing.assert_allclose(logarithms, np.log(x), rtol=4e-16, atol=1e-18)
    np.testing.assert_allclose(exponentials, np.exp(x), rtol=8e-16)


@pytest.mark.parametrize("size", SIZES)
def test_rzf_and_rates_equal_torch(size: tuple[int, int]) -> None:
    H, (power, noise) = channel(19, *size), levels(19)
    W = Channels(H, power, noise).rzf()
    torch.testing.assert_close(W, rzf(H, power, noise), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(rates(H, W, noise), rate(H, W, noise), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (8, 8), (16, 16)])
def test_maximum_ratio_and_zero_forcing_equal_torch(size: tuple[int, int]) -> None:
    H, (power, noise) = channel(19, *size), levels(19)
    found = Channels(H, power, noise)
    filled = zf_waterfilling(H, power, noise)
    for W, expected in (
        (found.mrt(), mrt(H, power)),
        (found.zf(), zf(H, power)),
        (found.zf(filled=True), filled),
    ):
        torch.testing.assert_close(W, expected, rtol=1e-11, atol=1e-11)
    rounded = H.to(torch.complex64)
    single = Channels(rounded, power, noise).zf(filled=True)
    exact = zf_waterfilling(rounded.to(H.dtype), power, noise)
    torch.testing.assert_close(single.to(H.dtype), exact, rtol=1e-6, atol=1e-6)
    assert ((filled == 0).all(-2) == (found.zf(filled=True) == 0).all(-2)).all()


def test_zero_forcing_refuses_users_that_cannot_be_told_apart() -> None:
    H, (power, noise) = channel(9, 3, 4), levels(9)
    H[5, 2] = 1j * H[5, 0] + 0.5 * H[5, 1]
    with pytest.raises(InputError, match="matrix 5 are linearly dependent"):
        Channels(H, power, noise).zf()
    weights = torch.ones(9, 3, dtype=torch.float64)
    weights[:, 1] = 0
    assert (Channels(H, power, noise, weights).zf()[..., 1] == 0).all()
    with pytest.raises(InputError, match="5 users need at least as many antennas, not 4"):
        Channels(channel(9, 5, 4), power, noise).zf(filled=True)


@pytest.mark.parametrize("size", SIZES)
def test_wmmse_equals_torch_to_the_iteration(size: tuple[int, int]) -> None:
    H, (power, noise) = channel(19, *size), levels(19)
    weights = torch.rand(19, size[0], dtype=torch.float64) + 0.2
    expected = wmmse(H, power, noise, weights=weights)
    W, iterations, converged = Channels(H, power, noise, weights).wmmse()
    found, wanted = (sum_rate(H, w, noise, weights) for w in (W, expected.W))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)
    # where users outnumber antennas at 40 dB the last digits of a rate may decide a step's end
    assert ((iterations - expected.iterations).abs() <= 1).all()
    assert (converged == expected.converged).all()
    few = Channels(H, power, noise, weights).wmmse(most=2)
    assert (few[1] <= 2).all()


@pytest.mark.parametrize("size", SIZES)
def test_greedy_selection_equals_torch(size: tuple[int, int]) -> None:
    H, (power, noise) = channel(19, *size), levels(19)
    weights = torch.rand(19, size[0], dtype=torch.float64) + 0.2
    expected = greedy_users(H, power, noise, weights)
    assert (Channels(H, power, noise, weights).greedy() == expected).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("guard", [True, False])
def test_the_network_equals_torch(
    network: IcgnnPrecoder, size: tuple[int, int], guard: bool
) -> None:
    H, (power, noise) = channel(19, *size), levels(19)
    weights = torch.rand(19, size[0], dtype=torch.float64) + 0.2
    with torch.no_grad():
        expected = precode(network, H, power, noise, weights=weights, guard=guard)
    found = Channels(H, power, noise, weights).network(
        compile_network(network), guard=guard, select=False
    )
    value = np.log(2) * (weights * expected.rate).sum(-1)
    torch.testing.assert_close(found.value, value, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        sum_rate(H, found.W, noise, weights) * np.log(2), found.value, rtol=1e-6, atol=0
    )
    if guard:
        assert ((found.value == found.safe) == expected.guarded).all()


def test_the_whole_method_equals_torch_in_both_precisions(network: IcgnnPrecoder) -> None:
    H, (power, noise) = channel(19, 7, 5), levels(19)
    expected = precode_users(network, H, power, noise)
    for dtype in (torch.complex128, torch.complex64):
        W = precode_compiled(compile_network(network), H.to(dtype), power, noise).W
        assert W.dtype == dtype
        found = sum_rate(H, W.to(H.dtype), noise)
        # each start leaves RZF what it gains less than 1e-5 over, there; here it is one decision
        torch.testing.assert_close(found, sum_rate(H, expected.W, noise), rtol=2e-5, atol=0)


def test_users_without_channel_or_weight_are_as_if_not_there(network: IcgnnPrecoder) -> None:
    H, (power, noise) = channel(9, 4, 6), levels(9)
    more = torch.cat([H[:, :2], torch.zeros_like(H[:, :1]), H[:, 2:], channel(9, 1, 6, seed=1)], 1)
    weights = torch.tensor([1.0, 2.0, 5.0, 3.0, 1.0, 0.0], dtype=torch.float64).expand(9, -1)
    own = weights[:, [0, 1, 3, 4]].contiguous()
    numbers = compile_network(network)
    for method in (
        lambda c: c.wmmse()[0],
        lambda c: c.rzf(),
        lambda c: c.mrt(),
        lambda c: c.zf(filled=True),
        lambda c: c.network(numbers).W,
    ):
        found = method(Channels(more, power, noise, weights))
        assert (found[..., [2, 5]] == 0).all()
        expected = method(Channels(H, power, noise, own))
        torch.testing.assert_close(found[..., [0, 1, 3, 4]], expected, rtol=1e-9, atol=1e-10)
    assert not Channels(more, power, noise, weights).greedy()[:, [2, 5]].any()


def test_a_channel_gives_the_same_bits_alone_and_among_others(network: IcgnnPrecoder) -> None:
    gains = path_gains((300, 6), torch.Generator().manual_seed(0), shadowing_db=20)
    H = channel(300, 6, 6) * gains.sqrt().unsqueeze(-1)
    power, noise = levels(300)
    numbers = compile_network(network)
    threads = torch.get_num_threads()
    try:
        for method in (
            lambda c: c.wmmse()[0],
            lambda c: c.rzf(),
            lambda c: c.zf(filled=True),
            lambda c: c.network(numbers, steps=2).W,
            lambda c: c.greedy(),
        ):
            torch.set_num_threads(1)
            whole = method(Channels(H, power, noise))
            torch.set_num_threads(2)
            assert torch.equal(method(Channels(H, power, noise)), whole)
            for part in (slice(5, 6), slice(3, 40), slice(250, 300)):
                found = method(Channels(H[part], power[part], noise[part]))
                assert torch.equal(found, whole[part])
    finally:
        torch.set_num_threads(threads)


def test_wmmse_steps_behind_the_network_never_lower_the_rate(network: IcgnnPrecoder) -> None:
    H, (power, noise) = channel(40, 8, 8), levels(40)
    numbers = compile_network(network)
    before = Channels(H, power, noise).network(numbers).value
    for steps in (1, 3, 20):
        after = Channels(H, power, noise).network(numbers, steps=steps).value
        assert (after >= before * (1 - 1e-12)).all()
        before = after
