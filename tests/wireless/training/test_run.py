# SPDX-License-Identifier: Apache-2.0
"""Training on drawn channels: it learns, it resumes, its samples are functions of the draw."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.channels.rayleigh import exponential_correlation, rayleigh
from fieldfare.wireless.networks.multipliers import OBJECTIVES, Objective, know, listen, value
from fieldfare.wireless.networks.power import IcgnnPower, allocate
from fieldfare.wireless.networks.precoder import IcgnnPrecoder, precode
from fieldfare.wireless.networks.quantised import (
    LearntLinear,
    expected_share,
    fake_quantise,
    learn_bits,
    quantise,
    stored_bytes,
)
from fieldfare.wireless.networks.rounded import freeze
from fieldfare.wireless.signals.csi import imperfect_csi
from fieldfare.wireless.signals.linear import rzf
from fieldfare.wireless.signals.power_baselines import fractional
from fieldfare.wireless.signals.rates import sum_rate
from fieldfare.wireless.signals.wmmse import wmmse
from fieldfare.wireless.training.run import (
    precoder_loss,
    train_power,
    train_precoder,
    training_settings,
)
from fieldfare.wireless.training.samples import (
    CellBatches,
    CellSettings,
    NetworkBatches,
    NetworkSettings,
    draw_profiles,
    neighbours,
    plane_waves,
)
from fieldfare.wireless.training.validation import PowerValidation, PrecoderValidation

SMALL = CellSettings(users=(4,), max_antennas=6)


def test_a_batch_depends_on_its_draw_alone() -> None:
    data = CellBatches(CellSettings(), 8)
    first, again = data[Draw(3, (1, 5))], data[Draw(7, (1, 5))]
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = data[Draw(3, (1, 6))]["H"]
    assert other.shape != first["H"].shape or not torch.equal(other, first["H"])


def test_correlated_channels_have_unit_gain_and_the_correlation_meant() -> None:
    generator = torch.Generator().manual_seed(0)
    for draw in (neighbours, plane_waves):
        gain = draw((2000, 3, 8), generator).abs().square().mean()
        assert abs(gain - 1) < 0.05
    magnitude, phase = torch.tensor(0.7), torch.tensor(0.4)
    expected = exponential_correlation(3, magnitude, phase)
    assert expected[1, 0].abs() == pytest.approx(0.7)


def test_stored_channels_are_used() -> None:
    stored = torch.full((5, 6, 8), 2.0 + 1j)
    settings = dataclasses.replace(SMALL, correlated=1.0)
    data = CellBatches(settings, 8, [stored])
    drawn = [data[Draw(0, (0, number))]["H"] for number in range(20)]
    assert any((H == 2 + 1j).all() for H in drawn)


def test_more_users_than_antennas_are_refused() -> None:
    with pytest.raises(InputError, match="--max-antennas"):
        CellBatches(CellSettings(users=(8,), max_antennas=4))


def test_a_short_run_beats_rzf_and_resumes(tmp_path: Path) -> None:
    data = CellBatches(SMALL, 32)
    settings = dataclasses.replace(training_settings(40, 2e-2), log_every=20, checkpoint_every=20)
    size = {"width": 8, "layers": 2, "quiet": True}
    network = train_precoder(data, settings, tmp_path / "a", **size)  # type: ignore[arg-type]
    H = rayleigh((64, 4, 4), torch.Generator().manual_seed(9))
    found = precode(network, H, 10.0, guard=False).rate.sum(-1).mean()
    untrained = precode(IcgnnPrecoder(8, 2), H, 10.0, guard=False).rate.sum(-1).mean()
    assert found > 1.005 * untrained > sum_rate(H, rzf(H, 10.0), 1.0).mean()
    again = train_precoder(data, settings, tmp_path / "a", **size)  # type: ignore[arg-type]
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="other settings"):
        train_precoder(
            CellBatches(dataclasses.replace(SMALL, correlated=0.1), 32),
            settings,
            tmp_path / "a",
            **size,  # type: ignore[arg-type]
        )


def test_the_untrained_loss_is_that_of_wmmse_steps() -> None:
    batch = {name: value[None] for name, value in CellBatches(SMALL, 8)[Draw(0, (0, 0))].items()}
    with torch.no_grad():
        loss = float(precoder_loss(IcgnnPrecoder(8, 1), batch))
        power, weights = (batch[name][0].double() for name in ("power", "weights"))
        H = batch["H"][0].to(torch.complex128)
        after = wmmse(H, power, 1.0, weights=weights, tolerance=-1.0, max_iterations=1).W
        gain = sum_rate(H, after, 1.0, weights) / sum_rate(H, rzf(H, power), 1.0, weights)
    assert loss == pytest.approx(-float(gain.log().mean()), rel=1e-5)


def test_with_errors_in_the_estimate_precoders_are_paid_by_the_rate_in_the_channel() -> None:
    network = IcgnnPrecoder(8, 1)
    torch.manual_seed(3)
    for name, parameter in network.named_parameters():
        if "head" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    H = rayleigh((6, 4, 5), torch.Generator().manual_seed(1), torch.complex128)
    power = torch.full((6,), 10.0)
    batch = {"H": H[None], "power": power[None], "weights": torch.ones(1, 6, 4)}
    torch.manual_seed(0)
    loss = precoder_loss(network, batch, 0.2)
    torch.manual_seed(0)
    estimate = imperfect_csi(H, 0.2)
    reached = sum_rate(H, precode(network, estimate, power, guard=False).W, 1.0)
    expected = -(reached / sum_rate(H, rzf(estimate, power, 1.0), 1.0)).log().mean()
    assert abs(float(expected.detach())) > 1e-3
    torch.testing.assert_close(loss.float(), expected.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_short_run_beats_fractional_allocation(tmp_path: Path, objective: Objective) -> None:
    profiles = objective == "satisfaction"
    data = NetworkBatches(NetworkSettings(users=(4, 4), aps=(8, 10), profiles=profiles), 16)
    network = train_power(
        data,
        training_settings(30, 2e-2),
        tmp_path,
        objective=objective,
        width=8,
        layers=3,
        quiet=True,
    )
    cells = draw_networks(32, 4, 9, 2, generator=torch.Generator().manual_seed(9))
    profile = draw_profiles(cells, torch.Generator().manual_seed(9)) if profiles else None
    known = know(cells, profile)

    def score(mu: torch.Tensor) -> float:
        return float(value(known, listen(known, mu), mu, objective).mean())

    untrained = allocate(IcgnnPower(8, 3, objective), cells, profile)
    assert score(allocate(network, cells, profile)) > score(untrained) > score(fractional(cells))


def test_validation_gives_an_untrained_network_the_ratio_of_a_few_steps() -> None:
    found = PrecoderValidation(8)(IcgnnPrecoder(8, 2))
    assert 0.5 < found["full_10db"] < 0.99 < found["part_20db"] <= 1.001
    found = PowerValidation(4)(IcgnnPower(8, 2))
    assert all(0.2 < value < 0.95 for value in found.values())


def test_rounding_hits_the_grid_and_passes_gradients() -> None:
    values = torch.tensor([-9.0, -0.26, 0.1, 0.74, 9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    rounded = fake_quantise(values, scale, 4)
    np.testing.assert_allclose(rounded.detach(), [-4.0, -0.5, 0.0, 0.5, 3.5])
    rounded.sum().backward()
    assert values.grad is not None
    assert scale.grad is not None
    np.testing.assert_allclose(values.grad, [0, 1, 1, 1, 0])
    np.testing.assert_allclose(scale.grad, -8 + 7 - 0.48 - 0.2 - 0.48, atol=1e-6)


def test_a_low_precision_twin_is_small_and_untrained_the_same() -> None:
    network = IcgnnPrecoder()
    twin = quantise(network)
    assert stored_bytes(freeze(twin)) < 0.25 * stored_bytes(network)
    H = rayleigh((8, 6, 8), torch.Generator().manual_seed(0))
    torch.testing.assert_close(precode(twin, H, 10.0).W, precode(network, H, 10.0).W)
    loss = -precode(twin, H, 10.0, guard=False).rate.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for name, p in twin.named_parameters() if "head" in name]
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)


def test_bits_are_learned_with_the_weights(tmp_path: Path) -> None:
    """A tensor that the rate does not need loses bits; rounded to 16 it is the network itself."""
    torch.manual_seed(1)
    network = IcgnnPrecoder(4, 2)
    for name, parameter in network.named_parameters():
        if "head.weight" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    twin = learn_bits(network)
    layers = [m for m in twin.modules() if isinstance(m, LearntLinear)]
    assert float(expected_share(twin).detach()) == pytest.approx(np.mean([2, 4, 8, 16]) / 32)
    for layer in layers:
        for learnt in (layer.weight_bits, layer.input_bits):
            torch.nn.init.constant_(learnt.alpha[3], 1.0)
    assert {layer.grid()[:2] for layer in layers} == {(16, 16)}
    H = rayleigh((8, 4, 6), torch.Generator().manual_seed(0))
    kept = precode(twin.eval(), H, 10.0, guard=False).W
    torch.testing.assert_close(kept, precode(network, H, 10.0, guard=False).W, rtol=0.02, atol=0.02)
    full = stored_bytes(freeze(twin))
    start = learn_bits(network)
    settings = training_settings(40, 0.1)
    found = train_precoder(CellBatches(SMALL, 16), settings, tmp_path, start=start, quiet=True)
    assert stored_bytes(freeze(found)) < full < stored_bytes(network)
