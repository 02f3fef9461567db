# SPDX-License-Identifier: Apache-2.0
"""Cell-free precoding against what it costs on the fronthaul: MR, LP-MMSE and P-MMSE.

    python benchmarks/wireless/cooperation.py [--networks 2] [--realisations 100]

20 users, 40 access points of 4 antennas and 10 pilots, assigned as in the book (arXiv 2108.02541,
algorithm 4.1), every access point serving one user of each pilot; drawn networks, seed 0. SE by the
hardening bound over drawn channels, without a prelog factor; max-min is the closed-form optimum for
maximum ratio. Fronthaul: complex numbers of all access points for each sample of data, and for the
pilots of a coherence block.
"""

import argparse

import torch
from torch import Tensor

from fieldfare.common.console import table
from fieldfare.wireless.channels.drops import (
    DropSettings,
    assign_pilots,
    estimate_gains,
    large_scale_gains,
    select_by_pilots,
)
from fieldfare.wireless.networks.kernels.powers import max_min
from fieldfare.wireless.signals.cell_free import CellFree, cell_free
from fieldfare.wireless.signals.cooperation import (
    Precoding,
    draw_realisations,
    fronthaul,
    hardening_efficiency,
    precoders,
    spend,
)

USERS, APS, ANTENNAS = 20, 40, 4
KINDS: tuple[Precoding, ...] = ("mr", "lp-mmse", "p-mmse")


def draw(settings: DropSettings, generator: torch.Generator) -> CellFree:
    """One network with the book's pilots and clusters."""
    beta = large_scale_gains(1, USERS, APS, settings, generator)
    pilots = assign_pilots(beta, settings.pilots)
    serving = select_by_pilots(beta, pilots)
    gamma = estimate_gains(beta, pilots, settings)
    network = cell_free(beta, gamma, settings.power_mw, ANTENNAS, serving, pilots)
    return network.map(lambda part: part[0])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=2)
    parser.add_argument("--realisations", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings, generator = DropSettings(), torch.Generator().manual_seed(0)
    found: dict[str, list[Tensor]] = {}
    loads: dict[str, list[Tensor]] = {}
    for _ in range(options.networks):
        network = draw(settings, generator)
        drawn = draw_realisations(network, options.realisations, generator)
        fair = max_min(network.map(lambda part: part.unsqueeze(0))).mu[0]
        for name, kind, mu in (
            *((kind, kind, None) for kind in KINDS),
            ("mr, max-min powers", "mr", fair),
        ):
            W = spend(network, precoders(network, drawn.estimate, kind), kind, mu)
            found.setdefault(name, []).append(hardening_efficiency(drawn.channel, W))
            load = fronthaul(network, kind, samples=1, pilots=settings.pilots)
            sums = torch.stack([load.data.double().sum(), load.pilots.double().sum()])
            loads.setdefault(name, []).append(sums)
    rows = []
    for name, parts in found.items():
        se, load = torch.stack(parts), torch.stack(loads[name]).mean(0)
        rows.append(
            {
                "precoding": name,
                "mean_se": float(se.mean()),
                "lowest_se": float(se.amin(-1).mean()),
                "sum_se": float(se.sum(-1).mean()),
                "numbers_a_sample": float(load[0]),
                "numbers_of_pilots": float(load[1]),
            }
        )
    print(table(rows))


if __name__ == "__main__":
    main()
