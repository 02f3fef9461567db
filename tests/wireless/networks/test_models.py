# SPDX-License-Identifier: Apache-2.0
"""The packaged networks: size, and what they were measured to reach."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.common.commands.train import save_trained
from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard
from fieldfare.wireless.cell_free.learned import load_allocation
from fieldfare.wireless.cell_free.options import REFINEMENT
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.networks.cost import network_macs
from fieldfare.wireless.networks.kernels.powers import max_min
from fieldfare.wireless.networks.models import (
    load_power_network,
    load_precoder_network,
    task_of,
)
from fieldfare.wireless.networks.power import IcgnnPower, allocate
from fieldfare.wireless.networks.precoder import IcgnnPrecoder, precode
from fieldfare.wireless.networks.refine import refine
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.signals.cell_free import cell_free, spectral_efficiency
from fieldfare.wireless.signals.linear import rzf
from fieldfare.wireless.signals.power_baselines import fractional
from fieldfare.wireless.signals.rates import sum_rate
from fieldfare.wireless.signals.satisfaction import Profile, mean_satisfaction
from fieldfare.wireless.signals.sum_rate import maximise_sum_rate
from fieldfare.wireless.signals.wmmse import wmmse

WEIGHTS = Path(str(files("fieldfare.wireless.weights")))
PRECODER = str(WEIGHTS / "icgnn_precoder.safetensors")
POWER = str(WEIGHTS / "icgnn_power_max_min.safetensors")
SATISFACTION = str(WEIGHTS / "icgnn_power_satisfaction.safetensors")


@pytest.fixture(scope="module")
def network() -> IcgnnPrecoder:
    return load_precoder_network(PRECODER)[0]


def ratio(network: IcgnnPrecoder, H: torch.Tensor, power: float, best: float) -> float:
    with torch.no_grad():
        return float(precode(network, H, power).rate.sum(-1).mean()) / best


@pytest.mark.parametrize("path", [PRECODER, POWER, SATISFACTION])
def test_a_model_is_smaller_than_a_megabyte_and_has_its_card_beside_it(path: str) -> None:
    assert Path(path).stat().st_size < 1e6
    assert Path(path).with_suffix(".md").is_file()


@pytest.mark.parametrize(
    ("size", "least"), [("K8_N8", 0.975), ("K16_N16", 0.975), ("K8_N16", 0.995), ("K16_N64", 0.995)]
)
@pytest.mark.parametrize("snr_db", [0, 10, 20])
def test_ratio_to_the_stored_wmmse(
    network: IcgnnPrecoder, reference: Path, size: str, least: float, snr_db: int
) -> None:
    stored = np.load(reference / "wireless" / f"mumiso_{size}.npz")
    H = torch.from_numpy(stored["H"]).to(torch.complex64)
    best = stored[f"rate_wmmse_{snr_db}dB"].sum(-1).mean()
    assert ratio(network, H, 10 ** (snr_db / 10), best) >= least


@pytest.mark.parametrize("size", [(12, 12), (12, 16), (16, 16)])
@pytest.mark.parametrize("snr_db", [0, 10, 20])
def test_ratio_to_wmmse_at_sizes_never_trained_on(
    network: IcgnnPrecoder, size: tuple[int, int], snr_db: int
) -> None:
    H = rayleigh((24, *size), torch.Generator().manual_seed(1))
    power = 10 ** (snr_db / 10)
    best = float(sum_rate(H, wmmse(H, power).W, 1.0).mean())
    assert ratio(network, H, power, best) >= 0.975


@pytest.mark.parametrize("snr_db", [0, 10, 20])
def test_ratio_to_wmmse_on_38901_channels(network: IcgnnPrecoder, data: Path, snr_db: int) -> None:
    parts = np.load(data / "channels" / "umi_3g5_32t_k16.npz")["h_ri_f16"].astype(np.float32)
    H = torch.view_as_complex(torch.from_numpy(parts[:, 0].copy()))
    power = 10 ** (snr_db / 10)
    best = float(sum_rate(H, wmmse(H, power).W, 1.0).mean())
    assert ratio(network, H, power, best) >= 0.95


def test_it_beats_wmmse_from_one_start_on_fully_loaded_channels(network: IcgnnPrecoder) -> None:
    H = rayleigh((64, 8, 8), torch.Generator().manual_seed(2))
    best = sum_rate(H, wmmse(H, 100.0).W, 1.0)
    with torch.no_grad():
        found = precode(network, H, 100.0)
    assert (found.rate.sum(-1) > best).double().mean() >= 0.15
    assert (found.rate.sum(-1) >= sum_rate(H, rzf(H, 100.0), 1.0) * (1 - 1e-5)).all()


def test_refining_adds_rate(network: IcgnnPrecoder) -> None:
    H = rayleigh((64, 8, 8), torch.Generator().manual_seed(3))
    with torch.no_grad():
        W = precode(network, H, 10.0).W
        best = sum_rate(H, wmmse(H, 10.0).W, 1.0).mean()
        assert sum_rate(H, refine(H, W, 10.0, steps=12), 1.0).mean() >= 0.998 * best


@pytest.mark.parametrize(
    ("name", "antennas"), [("L4_K2_N1", 1), ("L8_K3_N1", 1), ("L10_K4_N2", 2), ("L25_K6_N4", 4)]
)
def test_least_se_is_within_3_percent_of_the_cone_programs(
    reference: Path, name: str, antennas: int
) -> None:
    stored = np.load(reference / "wireless" / f"cellfree_{name}.npz")
    parts = [torch.from_numpy(stored[key]).float() for key in ("beta", "gamma")]
    cells = cell_free(parts[0], parts[1], 199.526, antennas)
    se = spectral_efficiency(cells, load_allocation(POWER)(cells)).amin(-1)
    assert float(se.mean()) >= 0.97 * stored["se_maxmin"].min(-1).mean()
    assert (se.numpy() >= stored["se_fpa05"].min(-1)).all()


def test_least_se_on_a_network_twice_as_large_with_partial_service() -> None:
    generator = torch.Generator().manual_seed(4)
    cells = draw_networks(2, 20, 100, 4, serving_aps=20, generator=generator)
    se = spectral_efficiency(cells, load_allocation(POWER)(cells)).amin(-1)
    best = spectral_efficiency(cells, max_min(cells).mu.float()).amin(-1)
    assert (se >= 0.96 * best).all()
    assert (se > 1.2 * spectral_efficiency(cells, fractional(cells)).amin(-1)).all()


def test_the_satisfaction_network_satisfies_more_than_max_min_and_sum_rate() -> None:
    generator = torch.Generator().manual_seed(6)
    cells = draw_networks(6, 8, 30, 4, serving_aps=12, generator=generator)
    fair, most = max_min(cells).mu.float(), maximise_sum_rate(cells).mu.float()
    least = float(spectral_efficiency(cells, fair).amin(-1).mean())
    part = torch.linspace(0.0, 1.0, 8)
    profile = Profile(least * (0.5 + 0.4 * part), least * (1.1 + 0.4 * part), torch.ones(8))
    network, card = load_power_network("icgnn_power_satisfaction")
    assert network.objective == "satisfaction"
    assert any("sum rate" in metric.name for metric in card.metrics)
    mu = allocate(network, cells, profile, REFINEMENT)
    for other in (fair, most):
        ours, theirs = (mean_satisfaction(cells, m, profile).mean() for m in (mu, other))
        assert ours > theirs + 0.005
    with pytest.raises(InputError, match="--profile"):
        load_allocation("icgnn_power_satisfaction")


def test_behind_the_methods_signature_it_gives_the_same(network: IcgnnPrecoder) -> None:
    H = rayleigh((4, 6, 8), torch.Generator().manual_seed(5))
    one = torch.ones(4)
    with torch.no_grad():
        expected = sum_rate(H, precode(network, H, 10.0).W, 1.0)
    found = load_precoder(PRECODER)(H, 10 * one, one, None)
    assert (sum_rate(H, found.W, 1.0) >= expected * (1 - 1e-5)).all()
    assert found.guarded is not None
    assert network_macs(network, 16) > 1.9 * network_macs(network, 8)


def test_a_file_of_the_other_task_is_refused(tmp_path: Path) -> None:
    fresh = IcgnnPower(4, 1)
    about = {"summary": "Fresh weights.", "config": fresh.config, "seed": 3}
    path = save_trained(tmp_path, fresh, ModelCard("model", task_of(fresh), **about))
    network, card = load_power_network(str(path))
    assert network.config == {"width": 4, "layers": 1, "objective": "max-min"}
    assert card.seed == 3
    with pytest.raises(InputError, match="power model"):
        load_precoder_network(str(path))


def test_plain_steps_do_not_swing_with_many_users_on_a_pilot() -> None:
    generator = torch.Generator().manual_seed(3)
    cells = draw_networks(1, 50, 120, 4, serving_aps=30, generator=generator)
    best = spectral_efficiency(cells, max_min(cells, tolerance=3e-3).mu.float()).amin(-1)
    network, _ = load_power_network(POWER)
    found = spectral_efficiency(cells, allocate(network, cells, None, 16)).amin(-1) / best
    assert found > 0.995  # 0.9977; whole steps end at 0.9915
