# SPDX-License-Identifier: Apache-2.0
"""The packaged precoder against WMMSE run to the same sum rate, refinement, and growth with size.

    python benchmarks/wireless/precoding_speed.py [--count 256] [--repeats 5]

One thread, batched, i.i.d. channels. WMMSE to the same rate: from RZF, the fewest iterations whose
mean sum rate reaches that of the network, all channels running as long. Refinement: the fewest
steps from the network's point that reach the sum rate of WMMSE run to a relative change of 1e-6,
and its share of that WMMSE's time.
"""

import argparse
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.evaluation.timing import wall_seconds
from fieldfare.wireless.networks.refine import refine
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.signals.linear import rzf
from fieldfare.wireless.signals.rates import sum_rate
from fieldfare.wireless.signals.wmmse import wmmse

SIZES = ((8, 8), (16, 16), (12, 16), (16, 32))
GROWTH = ((4, 16), (8, 32), (16, 64), (32, 128), (64, 256))
SNRS_DB = (0, 10, 20)
MOST_STEPS = 20


def seconds(call, repeats: int) -> float:
    """Median of wall times."""
    return float(np.median(wall_seconds(call, repeats)))


def run_wmmse(H: Tensor, power: Tensor, iterations: int) -> Tensor:
    """W after a fixed number of iterations."""
    return wmmse(H, power, 1.0, tolerance=-1.0, max_iterations=iterations).W


def iterations_for(H: Tensor, power: Tensor, goal: float) -> int | None:
    """Fewest iterations whose mean sum rate reaches the goal, or None."""

    def reached(count: int) -> bool:
        return float(sum_rate(H, run_wmmse(H, power, count), 1.0).mean()) >= goal

    high = 1
    while not reached(high):
        high *= 2
        if high > 1000:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="icgnn_precoder")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    set_threads()
    precoder = load_precoder(options.model)
    generator = torch.Generator().manual_seed(0)
    rows, refined = [], []
    for users, antennas in SIZES:
        H = rayleigh((options.count, users, antennas), generator)
        one = H.real.new_ones(len(H))
        for snr in SNRS_DB:
            power = one * 10 ** (snr / 10)
            call = partial(precoder, H, power, one, None)
            goal = float(sum_rate(H, call().W, 1.0).mean())
            ours = seconds(call, options.repeats)
            count = iterations_for(H, power, goal)
            theirs = None
            if count is not None:
                theirs = seconds(partial(run_wmmse, H, power, count), options.repeats)
            rows.append(
                {
                    "users": users,
                    "antennas": antennas,
                    "snr_db": snr,
                    "icgnn_us": 1e6 * ours / len(H),
                    "rzf_us": 1e6 * seconds(partial(rzf, H, power, 1.0), options.repeats) / len(H),
                    "wmmse_iterations": count,
                    "wmmse_us": None if theirs is None else 1e6 * theirs / len(H),
                    "times": None if theirs is None else theirs / ours,
                }
            )
            refined.append(refinement(H, power, precoder, options.repeats) | {"snr_db": snr})
    print("WMMSE to the network's sum rate (None: not within 1000 iterations), per channel")
    print(table(rows))
    print("\nRefinement to the sum rate of WMMSE (1e-6)")
    print(table(refined))
    print("\nGrowth at 10 dB, per channel")
    print(table([growth(size, precoder, options.repeats, generator) for size in GROWTH]))


def refinement(H: Tensor, power: Tensor, precoder, repeats: int) -> dict:
    """Steps, ratio and time of the first refinement that reaches WMMSE."""
    one = H.real.new_ones(len(H))
    whole = partial(wmmse, H, power, 1.0)
    goal = float(sum_rate(H, whole().W, 1.0).mean())
    for steps in range(MOST_STEPS + 1):

        def call(steps: int = steps) -> Tensor:
            return refine(H, precoder(H, power, one, None).W, power, 1.0, steps=steps)

        ratio = float(sum_rate(H, call(), 1.0).mean()) / goal
        if ratio >= 1:
            break
    return {
        "users": H.shape[-2],
        "antennas": H.shape[-1],
        "steps": steps,
        "ratio_wmmse": ratio,
        "share_of_its_time": seconds(call, repeats) / seconds(whole, max(2, repeats // 2)),
    }


def growth(size: tuple[int, int], precoder, repeats: int, generator: torch.Generator) -> dict:
    """Times of one size, in batches of 32."""
    users, antennas = size
    H = rayleigh((32, users, antennas), generator)
    one = H.real.new_ones(len(H))
    power = 10 * one
    calls = {
        "rzf_us": partial(rzf, H, power, 1.0),
        "icgnn_us": partial(precoder, H, power, one, None),
        "wmmse_us": partial(wmmse, H, power, 1.0),
    }
    return {"users": users, "antennas": antennas} | {
        name: 1e6 * seconds(call, repeats) / len(H) for name, call in calls.items()
    }


if __name__ == "__main__":
    main()
