# SPDX-License-Identifier: Apache-2.0
"""The packaged precoder from -20 to 60 dB: against WMMSE, greedy selection and RZF.

    python benchmarks/wireless/snr_range.py [--count 200] [--csv FILE]

Ratios of mean sum rates over drawn channels, and the lowest ratio to RZF of a single channel, which
the guard keeps at 1.
"""

import argparse
from pathlib import Path

import torch

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.wireless.channels.draw import draw_channels
from fieldfare.wireless.evaluation.tables import table as csv_table
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.precoding.methods import baseline
from fieldfare.wireless.signals.rates import sum_rate

SETTINGS = (
    ("rayleigh", 8, 8),
    ("rayleigh", 16, 16),
    ("rayleigh", 8, 32),
    ("rayleigh", 12, 8),
    ("rayleigh", 20, 4),
    ("correlated", 8, 8),
    ("correlated", 8, 16),
)
SNRS_DB = (-20, -10, 0, 10, 20, 30, 40, 60)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    set_threads()
    methods = {name: baseline(name) for name in ("rzf", "greedy", "wmmse")}
    methods["icgnn"] = load_precoder("icgnn_precoder")
    rows = []
    for kind, users, antennas in SETTINGS:
        H = draw_channels(kind, options.count, users, antennas, seed=11)
        one = H.real.new_ones(len(H))
        exact = H.to(torch.complex128)
        for snr in SNRS_DB:
            power = one * 10 ** (snr / 10)
            rates = {
                name: sum_rate(exact, method(H, power, one, None).W.to(exact), 1.0)
                for name, method in methods.items()
            }
            mean = {name: float(rate.mean()) for name, rate in rates.items()}
            rows.append(
                {
                    "channels": kind,
                    "users": users,
                    "antennas": antennas,
                    "snr_db": snr,
                    "over_wmmse": mean["icgnn"] / mean["wmmse"],
                    "over_greedy": mean["icgnn"] / mean["greedy"],
                    "over_rzf": mean["icgnn"] / mean["rzf"],
                    "worst_over_rzf": float((rates["icgnn"] / rates["rzf"]).min()),
                }
            )
    print(table(rows))
    if options.csv:
        options.csv.write_text(csv_table(rows))


if __name__ == "__main__":
    main()
