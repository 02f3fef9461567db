# SPDX-License-Identifier: Apache-2.0
"""3GPP TR 38.901 channels (UMi, UMa, RMa) of one sector, drawn by Sionna; an optional extra.

Source: 3GPP TR 38.901; Sionna (arXiv 2203.11854), whose package `sionna-no-rt` is imported when
the first channel is drawn.
"""

import importlib
from types import ModuleType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

Scenario = Literal["umi", "uma", "rma"]
SCENARIOS: tuple[Scenario, ...] = ("umi", "uma", "rma")
_MODELS = {"umi": "UMi", "uma": "UMa", "rma": "RMa"}


class SectorChannels(NamedTuple):
    """Channels of unit mean gain and the gain they had.

    H: (drops, tones, K, N) complex64, the mean of |h|^2 over tones and antennas of each user 1;
        row k as used in y_k = H[k] W s.
    gain_db: (drops, K), path loss, shadowing, and antenna gain; H 10^(gain_db / 20) is the channel.
    indoor: (drops, K) bool.
    """

    H: Tensor
    gain_db: Tensor
    indoor: Tensor


def draw_sector(
    scenario: Scenario,
    drops: int,
    users: int,
    panel: tuple[int, int] = (4, 4),
    *,
    carrier_hz: float = 3.5e9,
    tones: int = 1,
    tone_spacing_hz: float = 360e3,
    seed: int = 0,
) -> SectorChannels:
    """Downlink channels from a dual-polarised panel to users with one isotropic antenna each.

    Args:
        scenario: "umi", "uma" or "rma", with 38.901's heights, distances and indoor users.
        drops: independent sectors.
        users: K of each.
        panel: rows and columns of cross-polarised pairs, so that N = 2 rows columns.
        carrier_hz: of the carrier; 0.7 GHz suits rma.
        tones: frequencies, centred on the carrier.
        tone_spacing_hz: 360 kHz is one resource block at 30 kHz subcarrier spacing.
        seed: of Sionna's own generators, which this sets.

    Raises:
        InputError: no such scenario, a count below 1, or Sionna is not installed.
    """
    if scenario not in SCENARIOS:
        raise InputError(f"scenario {scenario!r}: choose one of {', '.join(SCENARIOS)}")
    if min(drops, users, tones, *panel) < 1:
        raise InputError("drops, users, tones and the panel's rows and columns must be at least 1")
    phy, channel, models = (_import(name) for name in ("", ".channel", ".channel.tr38901"))
    phy.config.seed = seed

    arrays = {
        "bs_array": models.PanelArray(
            num_rows_per_panel=panel[0],
            num_cols_per_panel=panel[1],
            polarization="dual",
            polarization_type="cross",
            antenna_pattern="38.901",
            carrier_frequency=carrier_hz,
            device="cpu",
        ),
        "ut_array": models.PanelArray(
            num_rows_per_panel=1,
            num_cols_per_panel=1,
            polarization="single",
            polarization_type="V",
            antenna_pattern="omni",
            carrier_frequency=carrier_hz,
            device="cpu",
        ),
    }
    indoor_loss = {} if scenario == "rma" else {"o2i_model": "low"}
    model = getattr(models, _MODELS[scenario])(
        carrier_frequency=carrier_hz, direction="downlink", device="cpu", **arrays, **indoor_loss
    )
    topology = channel.gen_single_sector_topology(drops, users, scenario, device="cpu")
    model.set_topology(*topology)
    # [drop, user, its antenna, base station, its antenna, path, time]
    coefficients, delays = model(1, tones * tone_spacing_hz)
    frequencies = (torch.arange(tones) - (tones - 1) / 2) * tone_spacing_hz
    response = channel.cir_to_ofdm_channel(frequencies, coefficients, delays)
    H = response[:, :, 0, 0, :, 0, :].movedim(-1, 1).to(torch.complex64)
    gain = H.abs().double().square().mean((1, 3))
    H = H / gain.sqrt()[:, None, :, None]
    return SectorChannels(H.to(torch.complex64), 10 * gain.log10(), topology[5])


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module("sionna.phy" + name)
    except ModuleNotFoundError:
        raise InputError(
            "3GPP 38.901 channels need Sionna: "
            "install it with pip install 'fieldfare-wireless[sionna]'"
        ) from None
