# SPDX-License-Identifier: Apache-2.0
"""The largest volume, depth and width that train under one memory budget, in each memory mode.

    python benchmarks/medical/largest_fit.py [--side 48] [--csv largest_fit.csv]

The budget is what one training step of the preset takes in mode `none` on a patch of --side voxels:
weights, gradients, Adam's moments, activations, images (resident memory above Python and torch).
Then, each alone and the others as in the preset, the patch, the number of blocks and the channels
grow as far as the step stays within it. Every trial is a step in a process of its own, which ends
as soon as it is over the budget. Against that stand the claims in the abstract of Pendse et al.
2021 (arXiv 2104.09648): up to 3 times the volume, 25 % more depth, or twice the channels.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from step_memory import MIB, in_a_process, training_step, write_csv

from fieldfare.common.blocks import MEMORY_MODES
from fieldfare.medical.networks.config import PRESETS, NetworkConfig
from fieldfare.medical.networks.create import create_network

CLAIMS = {"volume": 3.0, "depth": 1.25, "width": 2.0}

SLACK = 1.02
"""Peaks of the same step differ by this from process to process."""

WIDTH_STEPS = 8
"""Channels grow by an eighth of the preset's."""

Size = tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """A network and patch, and how many times the preset's they are along one axis."""

    config: NetworkConfig
    size: Size
    ratio: float


def larger_volume(config: NetworkConfig, size: Size, step: int) -> Trial:
    """The patch longer by the stride, `step` times, one axis after the other."""
    stride = 2 ** (len(config.channels) - 1)
    count = len(size)
    sides = tuple(side + stride * ((step + count - 1 - i) // count) for i, side in enumerate(size))
    ratio = 1.0
    for new, old in zip(sides, size, strict=True):
        ratio *= new / old
    return Trial(config, sides, ratio)


def deeper(config: NetworkConfig, size: Size, step: int) -> Trial:
    """`step` more blocks, one level after the other, finest first, down before up."""
    down, up = list(config.blocks), list(config.decoder_blocks)
    places = [(part, level) for level in range(len(down)) for part in (down, up)]
    places = [(part, level) for part, level in places if level < len(part)]
    for number in range(step):
        part, level = places[number % len(places)]
        part[level] += 1
    blocks = sum(config.blocks) + sum(config.decoder_blocks)
    return Trial(
        replace(config, blocks=tuple(down), decoder_blocks=tuple(up)), size, 1 + step / blocks
    )


def wider(config: NetworkConfig, size: Size, step: int) -> Trial:
    """Channels by `step` eighths more, even numbers."""
    ratio = 1 + step / WIDTH_STEPS
    channels = tuple(2 * round(width * ratio / 2) for width in config.channels)
    return Trial(replace(config, channels=channels), size, ratio)


GROWTHS: dict[str, Callable[[NetworkConfig, Size, int], Trial]] = {
    "volume": larger_volume,
    "depth": deeper,
    "width": wider,
}


def measure(trial: Trial, mode: str, budget: float | None = None) -> dict[str, Any] | None:
    """A training step in a process of its own; None over the budget (MiB)."""
    build = partial(create_network, trial.config, mode)
    limit = None if budget is None else int(budget * MIB)
    return in_a_process(partial(training_step, build, trial.size, budget=limit))


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The last of 0, 1, ..., most that fits, if all before it do; 0 is taken to."""
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="reversible")
    parser.add_argument("--side", type=int, default=48, help="Of the reference patch, voxels.")
    parser.add_argument("--most", type=float, default=4, help="Where the search ends, times.")
    parser.add_argument("--axes", nargs="+", choices=list(GROWTHS), default=list(GROWTHS))
    parser.add_argument("--modes", nargs="+", choices=MEMORY_MODES, default=MEMORY_MODES)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    config = PRESETS[options.preset]
    size = (options.side,) * config.ndim
    reference = measure(Trial(config, size, 1), "none")
    if reference is None:
        parser.error(f"--side {options.side}: does not fit into this machine's memory")
    budget = reference["peak_mib"] * SLACK
    print(
        f"{options.preset}, {reference['parameters']:,} parameters, patch "
        f"{' x '.join(map(str, size))}: budget {budget:.0f} MiB, {reference['cpu_s']} s a step"
    )
    rows: list[dict[str, Any]] = []
    for axis in options.axes:
        for mode in options.modes:
            row = search(axis, mode, config, size, budget, options.most)
            rows.append(row)
            at_least = "at least " if row["capped"] else ""
            print(
                f"{axis:6s}  {mode:11s} {at_least}{row['ratio']:.2f}x  (size {row['size']}, "
                f"channels {row['channels']}, blocks {row['blocks']}; peak {row['peak_mib']} MiB)",
                flush=True,
            )
    report(rows)
    write_csv(options.csv, rows)


def search(
    axis: str, mode: str, config: NetworkConfig, size: Size, budget: float, most: float
) -> dict[str, Any]:
    """The largest fit along an axis in a mode."""
    grow, peaks = GROWTHS[axis], {}

    def fits(step: int) -> bool:
        found = measure(grow(config, size, step), mode, budget)
        if found is not None:
            peaks[step] = found["peak_mib"]
        return found is not None

    last = 0
    while grow(config, size, last + 1).ratio <= most:
        last += 1
    step = largest(fits, last)
    trial = grow(config, size, step)
    return {
        "axis": axis,
        "mode": mode,
        "ratio": round(trial.ratio, 3),
        "capped": step == last,
        "size": "x".join(map(str, trial.size)),
        "channels": "-".join(map(str, trial.config.channels)),
        "blocks": "-".join(map(str, (*trial.config.blocks, *trial.config.decoder_blocks[::-1]))),
        "peak_mib": peaks.get(step, ""),
        "budget_mib": round(budget, 1),
    }


def report(rows: list[dict[str, Any]]) -> None:
    """The claims beside what was found."""
    for axis, claim in CLAIMS.items():
        ratios = {row["mode"]: row for row in rows if row["axis"] == axis}
        if "reversible" in ratios:
            found = ratios["reversible"]["ratio"]
            plain = ratios["none"]["ratio"] if "none" in ratios else 1.0
            print(
                f"{axis}: the paper says {claim:g}x; here {found / plain:.2f}x what fits plainly: "
                + ("reached" if found / plain >= claim else "NOT REACHED")
            )


if __name__ == "__main__":
    main()
