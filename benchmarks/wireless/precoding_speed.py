# SPDX-License-Identifier: Apache-2.0
"""Rate against microseconds of every precoder, one thread, i.i.d. channels in one call.

    python benchmarks/wireless/precoding_speed.py [--count 256] [--growth] [--slot]
        [--picture FILE.png]

Processor time of the least of some calls, per channel, so that other work on the machine matters
little; rates as mean sum rates over that of WMMSE (from RZF, relative change 1e-6). "icgnn" is the
default: the network from everyone and from greedy selection; "network" is its one pass from
everyone, "+ n" with n WMMSE steps behind the layers. The slot is 69 precoders of one call against
500 us, p50 and p99 of wall time and, as other work on the machine shows in that, of processor time.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.console import table
from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.evaluation.tables import table as csv_table
from fieldfare.wireless.evaluation.timing import wall_seconds
from fieldfare.wireless.networks.kernels.channels import Channels, Compiled, compile_network
from fieldfare.wireless.networks.models import load_precoder_network
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.precoding.methods import baseline, exact_rate
from fieldfare.wireless.precoding.options import BASELINES

SIZES = ((8, 8), (12, 12), (16, 16), (16, 32))
GROWTH = ((4, 16), (8, 32), (16, 64), (32, 128), (48, 192), (64, 256))
SLOT = ((8, 8), (8, 32))
SNRS_DB = (0, 10, 20)
MARKERS, LOWEST = "vX*s^DoPp", 0.8
PICTURED = ((8, 8), (16, 16), (16, 32))


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Least processor time of a call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def methods(model: str, network: Compiled) -> dict[str, Callable[..., Tensor]]:
    """By name: (H, power, noise_power) to W."""

    def one_pass(steps: int, H: Tensor, power: Tensor, noise: Tensor) -> Tensor:
        return Channels(H, power, noise).network(network, steps=steps, select=False).W

    def through(precoder: Callable[..., object], H: Tensor, *levels: Tensor) -> Tensor:
        return precoder(H, *levels, None).W  # type: ignore[attr-defined,no-any-return]

    named = {name: baseline(name) for name in BASELINES}
    named["icgnn"] = load_precoder(model)
    found: dict[str, Callable[..., Tensor]] = {
        name: partial(through, precoder) for name, precoder in named.items()
    }
    return found | {"network": partial(one_pass, 0), "network + 4": partial(one_pass, 4)}


def measure(size: tuple[int, int], snr_db: float, count: int, repeats: int, calls) -> list[dict]:
    """Rows of one size and SNR."""
    H = rayleigh((count, *size), torch.Generator().manual_seed(0))
    one = H.real.new_ones(count)
    power = one * 10 ** (snr_db / 10)
    rates = {
        name: float(exact_rate(H, call(H, power, one), one).sum(-1).mean())
        for name, call in calls.items()
    }
    return [
        {
            "users": size[0],
            "antennas": size[1],
            "snr_db": snr_db,
            "method": name,
            "us": 1e6 * seconds(partial(call, H, power, one), repeats) / count,
            "over_wmmse": rates[name] / rates["wmmse"],
        }
        for name, call in calls.items()
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="icgnn_precoder")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="also up to 64 users, 256 antennas")
    parser.add_argument("--slot", action="store_true", help="the slot's table alone")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--picture", type=Path, help="rate against microseconds at 10 dB")
    options = parser.parse_args()
    torch.set_num_threads(1)
    calls = methods(options.model, compile_network(load_precoder_network(options.model)[0]))
    rows = [
        row
        for size in (() if options.slot else SIZES)
        for snr in SNRS_DB
        for row in measure(size, snr, options.count, options.repeats, calls)
    ]
    if rows:
        print(table(rows))
    if options.growth:
        grown = [row for size in GROWTH for row in measure(size, 10, 32, options.repeats, calls)]
        print("\nGrowth at 10 dB, 32 channels a call")
        print(table(grown))
        rows += grown
    print("\n69 precoders in one call, 10 dB, against 500 us")
    print(table([slot(size, name, call) for size in SLOT for name, call in calls.items()]))
    if options.picture:
        draw(options.picture, rows)
    if options.csv:
        options.csv.write_text(csv_table(rows))


def draw(path: Path, rows: list[dict]) -> None:
    """Rate over WMMSE's against microseconds, a field for each size; what is below in words."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    fields = figure.subplots(1, len(PICTURED), sharey=True)
    for axes, size in zip(fields, PICTURED, strict=True):
        chosen = [
            row for row in rows if (row["users"], row["antennas"], row["snr_db"]) == (*size, 10)
        ]
        for marker, row in zip(MARKERS, chosen, strict=False):
            axes.plot(row["us"], row["over_wmmse"], marker, label=row["method"], markersize=6)
        low = [
            f"{row['method']} {row['over_wmmse']:.2f}" for row in chosen if row["over_wmmse"] < 0.8
        ]
        axes.text(0.02, 0.03, "below: " + ", ".join(low), transform=axes.transAxes, size=7)
        axes.set_xscale("log")
        axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50])
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(0.4, 70)
        axes.set_ylim(LOWEST, 1.03)
        axes.set_xlabel("microseconds a channel")
        axes.set_title(f"{size[0]} users, {size[1]} antennas, 10 dB", fontsize=9)
        axes.grid(alpha=0.3)
    fields[0].set_ylabel("sum rate over WMMSE's")
    fields[-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def slot(size: tuple[int, int], name: str, call: Callable[..., Tensor]) -> dict:
    """One line of the slot's table."""
    H = rayleigh((69, *size), torch.Generator().manual_seed(1))
    one = H.real.new_ones(69)
    call(H, 10 * one, one)
    spent = []

    def timed() -> None:
        began = time.process_time()
        call(H, 10 * one, one)
        spent.append(time.process_time() - began)

    found = {"wall": wall_seconds(timed, 200), "processor": np.array(spent)}
    row = {"users": size[0], "antennas": size[1], "method": name}
    return row | {
        f"{clock}_p{percent}_us": 1e6 * float(np.percentile(times, percent))
        for clock, times in found.items()
        for percent in (50, 99)
    }


if __name__ == "__main__":
    main()
