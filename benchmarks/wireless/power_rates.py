# SPDX-License-Identifier: Apache-2.0
"""What a power network trained for max-min reaches: lowest SE over the optimum's.

    python benchmarks/wireless/power_rates.py [--model icgnn_power_max_min]

The stored cell-free networks (FIELDFARE_REFERENCE), and networks drawn with seeds that neither
training nor its validation uses; the optimum is max-min's, proved within 1e-6.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.wireless.cell_free.learned import load_allocation
from fieldfare.wireless.cell_free.methods import Allocation
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.networks.kernels.powers import max_min
from fieldfare.wireless.signals.cell_free import CellFree, cell_free, lowest_efficiency
from fieldfare.wireless.signals.cell_free import spectral_efficiency as efficiency
from fieldfare.wireless.signals.power_baselines import fractional

STORED = ("L4_K2_N1", "L8_K3_N1", "L10_K4_N2", "L25_K6_N4")
DRAWN = (
    (6, 25, 4, None, 20),
    (12, 50, 4, 12, 20),
    (12, 50, 4, None, 20),
    (8, 30, 2, 10, 20),
    (20, 100, 4, 20, 10),
    (14, 40, 4, None, 20),
    (100, 400, 4, 40, 2),
)
"""Users, access points, antennas, access points that serve a user, and how many networks."""

SEED = 1


def networks() -> Iterator[tuple[str, CellFree]]:
    """By name: those stored, those drawn."""
    folder = Path(os.environ["FIELDFARE_REFERENCE"]) / "wireless"
    for name in STORED:
        stored = np.load(folder / f"cellfree_{name}.npz")
        beta, gamma = (torch.from_numpy(stored[key]).float() for key in ("beta", "gamma"))
        network = cell_free(beta, gamma, float(stored["P"]), int(stored["N"]))
        yield f"stored {name}", network
    for users, aps, antennas, serving, count in DRAWN:
        generator = torch.Generator().manual_seed(SEED)
        served = "all" if serving is None else str(serving)
        yield (
            f"drawn, {users} users, {aps} APs, {served} serving",
            draw_networks(count, users, aps, antennas, serving_aps=serving, generator=generator),
        )


def measure(allocation: Allocation) -> list[dict[str, object]]:
    """A row for each kind of network."""
    rows: list[dict[str, object]] = []
    for name, network in networks():
        best = lowest_efficiency(network, efficiency(network, max_min(network).mu.float()))
        found, plain = (
            lowest_efficiency(network, efficiency(network, mu)) / best
            for mu in (allocation(network), fractional(network))
        )
        rows.append(
            {
                "networks": name,
                "mean": float(found.mean()),
                "worst": float(found.min()),
                "fractional": float(plain.mean()),
            }
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="icgnn_power_max_min")
    options = parser.parse_args()
    set_threads(1)
    print(table(measure(load_allocation(options.model))))


if __name__ == "__main__":
    main()
