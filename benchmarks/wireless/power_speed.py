# SPDX-License-Identifier: Apache-2.0
"""The packaged max-min allocation against the solver: least SE, time, and growth with size.

    python benchmarks/wireless/power_speed.py [--count 10]

One thread. The network's time is per network of a batch of --count, the solver takes one after the
other. The last size, 400 access points and 100 users, is timed for the network alone.
"""

import argparse
from functools import partial

import numpy as np
import torch

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.wireless.cell_free.learned import load_allocation
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.evaluation.timing import wall_seconds
from fieldfare.wireless.signals.cell_free import spectral_efficiency
from fieldfare.wireless.signals.max_min import max_min_socp
from fieldfare.wireless.signals.power_baselines import fractional

SIZES = ((4, 25, 4, None), (6, 25, 4, None), (10, 50, 4, None), (10, 50, 4, 20), (12, 60, 2, 25))
LARGE = (100, 400, 4, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="icgnn_power_max_min")
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    set_threads()
    allocate = load_allocation(options.model)
    rows = []
    for users, aps, antennas, serving in (*SIZES, LARGE):
        large = (users, aps, antennas, serving) == LARGE
        count = 2 if large else options.count
        network = draw_networks(
            count,
            users,
            aps,
            antennas,
            serving_aps=serving,
            generator=torch.Generator().manual_seed(1),
        )
        ours = spectral_efficiency(network, allocate(network)).amin(-1)
        plain = spectral_efficiency(network, fractional(network)).amin(-1)
        spent = float(np.median(wall_seconds(partial(allocate, network), 5))) / count
        row = {
            "users": users,
            "aps": aps,
            "serving": serving,
            "min_se": float(ours.mean()),
            "over_fractional": float((ours / plain).mean()),
            "icgnn_ms": 1e3 * spent,
            "ratio_max_min": None,
            "worst_ratio": None,
            "solver_ms": None,
            "times": None,
        }
        if not large:
            best = spectral_efficiency(network, max_min_socp(network).mu.to(ours.dtype)).amin(-1)
            solver = float(np.median(wall_seconds(partial(max_min_socp, network), 2))) / count
            row |= {
                "ratio_max_min": float((ours / best).mean()),
                "worst_ratio": float((ours / best).min()),
                "solver_ms": 1e3 * solver,
                "times": solver / spent,
            }
        rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
