# SPDX-License-Identifier: Apache-2.0
"""The default of wl-precode against the best of many starts of WMMSE, and greedy selection.

    python benchmarks/wireless/best_of_starts.py [--count 64] [--starts 11] [--model NAME|PATH]

WMMSE is run from RZF and from random precoders, to a relative change of 1e-6, and of every channel
the best run is taken. Fully loaded i.i.d. channels, and overloaded ones, of a seed that nothing was
trained on. Means over mean rates; "worst" is the lowest ratio of a single channel.
"""

import argparse

import torch

from fieldfare.common.console import table
from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.precoding.methods import baseline, exact_rate
from fieldfare.wireless.signals.wmmse import wmmse

LOADED = ((8, 8), (12, 12), (16, 16))
OVERLOADED = ((12, 8), (20, 4), (24, 16))
SNRS_DB = (0, 10, 20)
SEED = 31


def measure(size: tuple[int, int], snr_db: float, count: int, starts: int, model: str) -> dict:
    """One line of the table."""
    generator = torch.Generator().manual_seed(SEED)
    H = rayleigh((count, *size), generator, torch.complex128)
    one = torch.ones(count, dtype=torch.float64)
    power = one * 10 ** (snr_db / 10)
    found = {name: baseline(name)(H, power, one, None).W for name in ("rzf", "greedy", "wmmse")}
    found["icgnn"] = load_precoder(model)(H, power, one, None).W
    if starts > 1:
        several = wmmse(H, power, one, restarts=starts - 1, generator=generator)
        found[f"best_of_{starts}"] = several.W
    rates = {name: exact_rate(H, W, one).sum(-1) for name, W in found.items()}
    ours = rates.pop("icgnn")
    row = {"users": size[0], "antennas": size[1], "snr_db": snr_db}
    row |= {f"over_{name}": float(ours.sum() / rate.sum()) for name, rate in rates.items()}
    return row | {f"worst_over_{n}": float((ours / rates[n]).min()) for n in ("rzf", "greedy")}


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="icgnn_precoder")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--starts", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for sizes, starts in ((LOADED, options.starts), (OVERLOADED, 1)):
        rows = [
            measure(size, snr, options.count, starts, options.model)
            for size in sizes
            for snr in SNRS_DB
        ]
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
