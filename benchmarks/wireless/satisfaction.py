# SPDX-License-Identifier: Apache-2.0
"""Satisfaction with a zone of tolerance: against max-min and sum rate, and the power it saves.

    python benchmarks/wireless/satisfaction.py [--model icgnn_power_satisfaction] [--drawn]

The stored cell-free networks (FIELDFARE_REFERENCE), or, --drawn, those of `power_rates.py`, stored
and drawn, without the power saved. Profiles are drawn (seed 0) such that what
max-min gives every user of a network lies within its zone: adequate 0.5 to 0.95, desired 1.05 to
1.5 of the mean over the networks. Satisfaction is 0.1 at the adequate rate and 0.9 at the desired.
"saved" is the power that is not spent for the satisfaction that max-min, or sum rate, gives.
"icgnn" is a network of `wl-power train --objective satisfaction`.
"""

import argparse

import torch
from power_rates import networks
from torch import Tensor

from fieldfare.common.console import table
from fieldfare.wireless.cell_free.options import REFINEMENT
from fieldfare.wireless.networks.models import load_power_network
from fieldfare.wireless.networks.power import IcgnnPower, allocate
from fieldfare.wireless.signals.cell_free import CellFree, spectral_efficiency
from fieldfare.wireless.signals.max_min import max_min
from fieldfare.wireless.signals.satisfaction import (
    Profile,
    least_power,
    maximise_satisfaction,
    mean_satisfaction,
    spent,
)
from fieldfare.wireless.signals.sum_rate import maximise_sum_rate


def drawn_profile(network: CellFree, fair: Tensor) -> Profile:
    """Zones around what max-min gives."""
    least = float(spectral_efficiency(network, fair).amin(-1).mean())
    users = network.beta.shape[-2]
    u, v = torch.rand((2, users), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Profile(least * (0.5 + 0.45 * u), least * (1.05 + 0.45 * v), torch.ones_like(u))


def measure(
    name: str, network: CellFree, model: IcgnnPower, savings: bool = True
) -> list[dict[str, object]]:
    """Rows of one kind of networks."""
    fair, most = max_min(network).mu, maximise_sum_rate(network).mu
    profile = drawn_profile(network, fair)
    best = maximise_satisfaction(network, profile)
    learned = allocate(model, network, profile, REFINEMENT)
    compared = {"max-min": fair, "sum-rate": most, "satisfaction": best, "icgnn": learned}
    rows = []
    for method, mu in compared.items():
        reached = mean_satisfaction(network, mu, profile)
        se = spectral_efficiency(network, mu)
        row: dict[str, object] = {
            "networks": name,
            "method": method,
            "satisfaction": float(reached.mean()),
            "lowest": float(reached.min()),
            "users_at_0": float((se < 1e-3).double().mean()),
            "power": float(spent(network, mu).mean()),
        }
        if savings:
            less = least_power(network, profile, reached, mu)
            saved = 1 - spent(network, less) / spent(network, mu)
            row |= {"saved": float(saved.mean()), "saved_least": float(saved.min())}
        rows.append(row)
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="icgnn_power_satisfaction")
    parser.add_argument("--drawn", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_power_network(options.model)[0].double()
    rows = []
    for name, network in networks():
        if options.drawn or name.startswith("stored"):
            exact = network.map(lambda part: part.double() if part.is_floating_point() else part)
            rows += measure(name, exact, model, savings=not options.drawn)
            print(table(rows[-4:]), flush=True)


if __name__ == "__main__":
    main()
