# SPDX-License-Identifier: Apache-2.0
"""Max-min powers: compiled steps, the packaged network and cone programs, least SE and time.

    python benchmarks/wireless/power_speed.py [--count 10] [--large]

One thread, processor time a network in batches of --count, drawn networks of a seed that no
training used. "max-min" stops when its bound is within 1e-6 of the root of the smallest SINR,
"1 %" within 3e-3, cone programs at 1e-6, one network after the other. Ratios are those of the
least SE to the bound of max-min, which no powers can exceed. --large is one network of 400 access
points and 100 users, without cone programs; "at once" are the steps on whole matrices in torch,
which `wl-power` takes there, "one step" is the first of max-min.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fieldfare.common.console import table
from fieldfare.wireless.cell_free.learned import load_allocation
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.networks.kernels.powers import max_min
from fieldfare.wireless.signals.cell_free import CellFree, spectral_efficiency
from fieldfare.wireless.signals.cone_programs import max_min_socp
from fieldfare.wireless.signals.max_min import max_min as max_min_at_once
from fieldfare.wireless.signals.power_baselines import fractional

SIZES = ((4, 25, 4, None), (6, 25, 4, None), (10, 50, 4, None), (10, 50, 4, 20), (12, 60, 2, 25))
LARGE = (100, 400, 4, 40)


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Least processor time of a call."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


def methods(model: str) -> dict[str, Callable[[CellFree], Tensor]]:
    """By name: a network to mu."""
    return {
        "fractional": fractional,
        "icgnn": load_allocation(model),
        "icgnn, layers alone": load_allocation(model, refinement=0),
        "max-min, 1 %": lambda network: max_min(network, tolerance=3e-3).mu,
        "max-min": lambda network: max_min(network).mu,
        "cone programs": lambda network: max_min_socp(network).mu,
    }


def at_once() -> dict[str, Callable[[CellFree], Tensor]]:
    """Max-min on whole matrices: its first step, forty, all; and the compiled loop's first."""
    return {
        "max-min, one step": lambda network: max_min(network, max_steps=1).mu,
        "at once, one step": lambda network: max_min_at_once(network, max_steps=1).mu,
        "at once, 40 steps": lambda network: max_min_at_once(network, max_steps=40).mu,
        "at once": lambda network: max_min_at_once(network).mu,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="icgnn_power_max_min")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for size in (LARGE,) if options.large else SIZES:
        users, aps, antennas, serving = size
        count = 1 if options.large else options.count
        generator = torch.Generator().manual_seed(1)
        network = draw_networks(
            count, users, aps, antennas, serving_aps=serving, generator=generator
        )
        bound = torch.log2(1 + max_min(network).upper_bound)
        spent: dict[str, float] = {}
        compared = methods(options.model)
        if options.large:
            del compared["cone programs"]
            compared |= at_once()
        for name, method in compared.items():
            mu = method(network)
            repeats = 1 if name == "cone programs" else 3
            spent[name] = milliseconds(partial(method, network), repeats) / count
            least = spectral_efficiency(network, mu.to(network.beta)).amin(-1)
            rows.append(
                {
                    "users": users,
                    "aps": aps,
                    "serving": serving,
                    "method": name,
                    "ms": spent[name],
                    "over_bound": float((least / bound).mean()),
                    "worst": float((least / bound).min()),
                }
            )
        for row in rows[-len(spent) :]:
            row["ms_over_max_min"] = spent[str(row["method"])] / spent["max-min"]
    print(table(rows))


if __name__ == "__main__":
    main()
