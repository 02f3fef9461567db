# SPDX-License-Identifier: Apache-2.0
"""MMSE precoders of cell-free networks by drawn channels, beside maximum ratio's closed form."""

import pytest
import torch

from fieldfare.wireless.channels.drops import (
    DropSettings,
    assign_pilots,
    draw_networks,
    large_scale_gains,
    select_by_pilots,
)
from fieldfare.wireless.signals.cell_free import CellFree, spectral_efficiency
from fieldfare.wireless.signals.cooperation import (
    Precoding,
    draw_realisations,
    fronthaul,
    hardening_efficiency,
    precoders,
    spend,
)
from fieldfare.wireless.signals.power_baselines import fractional


def drawn(users: int, aps: int, antennas: int, serving: int | None = None) -> CellFree:
    generator = torch.Generator().manual_seed(2)
    network = draw_networks(
        1, users, aps, antennas, serving_aps=serving, generator=generator, dtype=torch.float64
    )
    return network.map(lambda part: part[0])


def efficiency(network: CellFree, kind: Precoding, count: int = 200) -> torch.Tensor:
    found = draw_realisations(network, count, torch.Generator().manual_seed(0))
    W = spend(network, precoders(network, found.estimate, kind), kind)
    spent = W.abs().square().sum((1, 3)).mean(0)
    assert (spent <= network.power * (1 + 1e-9)).all()
    assert not W.abs().sum((0, 3))[~network.serving].any()
    return hardening_efficiency(found.channel, W)


@pytest.mark.parametrize("size", [(4, 8, 2, None), (12, 9, 3, 4)])
def test_drawn_maximum_ratio_is_the_closed_form(size: tuple[int, int, int, int | None]) -> None:
    network = drawn(*size)
    found = efficiency(network, "mr", 6000)
    expected = spectral_efficiency(network, fractional(network))
    torch.testing.assert_close(found, expected, rtol=0.06, atol=0.01)


def test_the_more_is_known_at_one_place_the_higher_the_rate() -> None:
    network = drawn(8, 16, 4)
    plain, local, joint = (efficiency(network, kind) for kind in ("mr", "lp-mmse", "p-mmse"))
    assert local.sum() > 1.1 * plain.sum()
    assert joint.sum() > 1.1 * plain.sum()
    assert joint.log().sum() > local.log().sum() + 1
    assert joint.min() > 1.5 * max(local.min(), plain.min())


@pytest.mark.parametrize("kind", ["lp-mmse", "p-mmse"])
def test_against_noise_alone_mmse_is_maximum_ratio(kind: Precoding) -> None:
    network = drawn(3, 5, 2, 4)
    estimate = draw_realisations(network, 5, torch.Generator().manual_seed(0)).estimate
    found = precoders(network, estimate, kind, uplink=1e-12) / 1e-12
    torch.testing.assert_close(found, precoders(network, estimate, "mr"), rtol=1e-6, atol=1e-9)


def test_clusters_serve_one_user_of_a_pilot_and_nobody_is_left_out() -> None:
    settings = DropSettings(pilots=3)
    beta = large_scale_gains(4, 9, 12, settings, torch.Generator().manual_seed(1))
    pilots = assign_pilots(beta, settings.pilots)
    serving = select_by_pilots(beta, pilots)
    assert serving.any(-1).all()
    masters = torch.zeros_like(serving).scatter_(-1, beta.argmax(-1, keepdim=True), True)
    for pilot in range(3):
        mine = (pilots == pilot).unsqueeze(-1) & serving
        best = torch.where((pilots == pilot).unsqueeze(-1), beta, -1).amax(1, keepdim=True)
        assert ((mine & (beta == best)).sum(1) == 1).all()
        assert (mine & (beta < best) & ~masters).sum() == 0


def test_fronthaul_counts_what_crosses_it() -> None:
    network = drawn(6, 10, 4, 3)
    local, joint = (fronthaul(network, kind, 100, 10) for kind in ("lp-mmse", "p-mmse"))
    assert local.data.tolist() == (100 * network.serving.sum(0)).tolist()
    assert local.data.sum() == 100 * 6 * 3
    assert joint.data.tolist() == [400] * 10
    assert joint.pilots.tolist() == [40] * 10
