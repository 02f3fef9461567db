# SPDX-License-Identifier: Apache-2.0
"""Predicted against measured time of random sub-networks of an elastic MobileNetV3.

Usage: python benchmarks/common/latency_table.py [--networks 20] [--side 96] [--repeats 12]

The table takes up the blocks of the smallest, the largest and as many other networks as are needed
for all that the 20 have; the factor is fitted to five further networks, which are not among the 20.
Processor time, one thread, in turn, the smallest of the repeats. A row: predicted, measured, ratio.
"""

import argparse
import os

import numpy as np
import torch

from fieldfare.common.blocks.mbconv import MBConv
from fieldfare.common.budget import latency
from fieldfare.common.budget.table import LatencyTable, calls_of
from fieldfare.common.elastic.mobilenet import Layout, MobileClassifier, space

FITTED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--layers", action="store_true", help="single layers, not whole blocks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    genes, rng = space(5), np.random.default_rng(0)
    x = torch.zeros(1, 3, options.side, options.side)
    kinds = () if options.layers else (MBConv,)
    units, calls = {}, {}
    for number in range(options.networks + FITTED):
        net = MobileClassifier(genes.sample(rng), Layout(), 1000).eval()

        @torch.inference_mode()
        def unit(net: torch.nn.Module = net) -> object:
            return net(x)

        units[str(number)] = unit
        calls[str(number)] = calls_of(net, unit, kinds)
    table = LatencyTable(latency.machine())
    table.measure([call for some in calls.values() for call in some], repeats=options.repeats)
    measured = latency.measure(units, repeats=options.repeats)
    for number in range(FITTED):
        table.fit(calls[str(number)], measured[str(number)])
    ratios = []
    for name in list(units)[FITTED:]:
        predicted = table.predict(calls[name])
        ratios.append(predicted / measured[name])
        print(f"{1000 * predicted:.2f} ms {1000 * measured[name]:.2f} ms {ratios[-1]:.3f}")
    worst = max(abs(ratio - 1) for ratio in ratios)
    within = sum(abs(ratio - 1) <= 0.1 for ratio in ratios)
    print(
        f"{table.machine}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores: "
        f"{len(table.seconds)} blocks, factor {table.factor():.3f}; {within} of {len(ratios)} "
        f"within 10 %, the worst {worst:.1%} off"
    )


if __name__ == "__main__":
    main()
