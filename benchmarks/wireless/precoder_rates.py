# SPDX-License-Identifier: Apache-2.0
"""The packaged precoder on its test channels: the numbers of its card.

    python benchmarks/wireless/precoder_rates.py [--model NAME|PATH] [--csv FILE]

Stored channels (FIELDFARE_REFERENCE), 38.901 (FIELDFARE_DATA) and draws of seeds that no training
used: sum rate over that of WMMSE from RZF run to a relative change of 1e-6, mean over mean; that
over greedy selection with RZF; and the lowest such ratio of a single channel.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.wireless.channels.draw import draw_channels
from fieldfare.wireless.evaluation.tables import table as csv_table
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.precoding.methods import baseline, exact_rate

STORED = ((16, 16), (8, 16), (8, 8))
DRAWN = ((8, 8), (12, 12), (16, 16), (12, 16), (16, 32))
SECTORS = ("umi_3g5_32t_k16", "uma_3g5_64t_k16", "rma_0g7_16t_k8")
SNRS_DB = (0, 10, 20)
WIDE = (("rayleigh", 8, 8), ("rayleigh", 16, 16), ("rayleigh", 20, 4), ("correlated", 8, 8))
WIDE_SNRS_DB = (-20, -10, 30, 40, 60)


def cases(count: int) -> Iterator[tuple[str, Tensor, tuple[int, ...]]]:
    """Name, channels and SNR."""
    reference, data = (os.environ.get(f"FIELDFARE_{name}") for name in ("REFERENCE", "DATA"))
    for users, antennas in STORED if reference else ():
        stored = np.load(Path(str(reference)) / "wireless" / f"mumiso_K{users}_N{antennas}.npz")
        yield f"i.i.d., {users} x {antennas} (stored)", torch.from_numpy(stored["H"]), SNRS_DB
    for users, antennas in DRAWN:
        H = draw_channels("rayleigh", count, users, antennas, seed=21)
        yield f"i.i.d., {users} x {antennas}", H, SNRS_DB
    for name in SECTORS if data else ():
        parts = np.load(Path(str(data)) / "channels" / f"{name}.npz")["h_ri_f16"]
        H = torch.view_as_complex(torch.from_numpy(parts[:, 0].astype(np.float32)))
        yield f"38.901 {name}", H, SNRS_DB
    for kind, users, antennas in WIDE:
        H = draw_channels(kind, count, users, antennas, seed=22)
        yield f"{kind}, {users} x {antennas}", H, WIDE_SNRS_DB


def measure(model: str, count: int) -> list[dict[str, object]]:
    """A row for each case and SNR."""
    methods = {name: baseline(name) for name in ("wmmse", "greedy", "rzf")}
    methods["icgnn"] = load_precoder(model)
    rows: list[dict[str, object]] = []
    for name, H, snrs in cases(count):
        one = H.real.new_ones(len(H))
        for snr in snrs:
            power = one * 10 ** (snr / 10)
            rates = {
                method: exact_rate(H, precoder(H, power, one, None).W, one).sum(-1)
                for method, precoder in methods.items()
            }
            mean = {method: float(rate.mean()) for method, rate in rates.items()}
            row: dict[str, object] = {"channels": name, "snr_db": snr, "icgnn": mean["icgnn"]}
            for other in ("wmmse", "greedy", "rzf"):
                row[f"over_{other}"] = mean["icgnn"] / mean[other]
            row["worst_over_greedy"] = float((rates["icgnn"] / rates["greedy"]).min())
            row["worst_over_rzf"] = float((rates["icgnn"] / rates["rzf"]).min())
            rows.append(row)
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="icgnn_precoder")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    set_threads()
    rows = measure(options.model, options.count)
    print(table(rows))
    if options.csv:
        options.csv.write_text(csv_table(rows))


if __name__ == "__main__":
    main()
