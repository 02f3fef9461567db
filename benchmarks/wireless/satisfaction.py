# SPDX-License-Identifier: Apache-2.0
"""Satisfaction with a zone of tolerance: against max-min and sum rate, and the power it saves.

    python benchmarks/wireless/satisfaction.py [--model FILE]

The stored cell-free networks (FIELDFARE_REFERENCE). Profiles are drawn (seed 0) such that what
max-min gives every user of a network lies within its zone: adequate 0.5 to 0.95, desired 1.05 to
1.5 of the mean over the networks. Satisfaction is 0.1 at the adequate rate and 0.9 at the desired.
"saved" is the power that is not spent for the satisfaction that max-min, or sum rate, gives.
--model adds a network of `wl-power train --objective satisfaction`.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.console import table
from fieldfare.wireless.cell_free.options import REFINEMENT
from fieldfare.wireless.networks.models import load_power_network
from fieldfare.wireless.networks.power import IcgnnPower, allocate
from fieldfare.wireless.signals.cell_free import CellFree, cell_free, spectral_efficiency
from fieldfare.wireless.signals.max_min import max_min
from fieldfare.wireless.signals.satisfaction import (
    Profile,
    least_power,
    maximise_satisfaction,
    mean_satisfaction,
    spent,
)
from fieldfare.wireless.signals.sum_rate import maximise_sum_rate

SIZES = ("L4_K2_N1", "L8_K3_N1", "L10_K4_N2", "L25_K6_N4")


def drawn_profile(network: CellFree, fair: Tensor) -> Profile:
    """Zones around what max-min gives."""
    least = float(spectral_efficiency(network, fair).amin(-1).mean())
    users = network.beta.shape[-2]
    u, v = torch.rand((2, users), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Profile(least * (0.5 + 0.45 * u), least * (1.05 + 0.45 * v), torch.ones_like(u))


def measure(name: str, network: CellFree, model: IcgnnPower | None) -> list[dict[str, object]]:
    """Rows of one file."""
    fair, most = max_min(network).mu, maximise_sum_rate(network).mu
    profile = drawn_profile(network, fair)
    best = maximise_satisfaction(network, profile)
    compared = {"max-min": fair, "sum-rate": most, "satisfaction": best}
    if model is not None:
        compared["icgnn"] = allocate(model, network, profile, REFINEMENT)
    rows = []
    for method, mu in compared.items():
        reached = mean_satisfaction(network, mu, profile)
        less = least_power(network, profile, reached, mu)
        saved = 1 - spent(network, less) / spent(network, mu)
        se = spectral_efficiency(network, mu)
        rows.append(
            {
                "networks": name,
                "method": method,
                "satisfaction": float(reached.mean()),
                "lowest": float(reached.min()),
                "users_at_0": float((se < 1e-3).double().mean()),
                "power": float(spent(network, mu).mean()),
                "saved": float(saved.mean()),
                "saved_least": float(saved.min()),
            }
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_power_network(options.model)[0].double() if options.model else None
    folder = Path(os.environ["FIELDFARE_REFERENCE"]) / "wireless"
    rows = []
    for name in SIZES:
        stored = np.load(folder / f"cellfree_{name}.npz")
        beta, gamma = (torch.from_numpy(stored[key]).double() for key in ("beta", "gamma"))
        rows += measure(name, cell_free(beta, gamma, float(stored["P"]), int(stored["N"])), model)
    print(table(rows))


if __name__ == "__main__":
    main()
