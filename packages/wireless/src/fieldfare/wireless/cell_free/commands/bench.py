# SPDX-License-Identifier: Apache-2.0
"""wl-power bench: time of every allocation for each size."""

import importlib.util
from functools import partial
from typing import Any

import numpy as np
import torch

from fieldfare.common import console
from fieldfare.common.runtime import resolve_device, set_threads

from ...channels.drops import draw_networks
from ...evaluation.timing import wall_seconds
from ...options import LEARNED
from ..learned import load_allocation
from ..methods import BASELINES, Allocation
from ..options import CONES, BenchOptions

SLOW = {CONES: 3, "sum-rate": 3}
"""Timed calls of what takes seconds."""

ANTENNAS = 4


def bench(options: BenchOptions) -> None:
    """Print the table."""
    threads = set_threads()
    device = resolve_device(options.device).type
    learned = load_allocation(options.model, device=options.device)
    methods: dict[str, Allocation] = {LEARNED: learned, **BASELINES}
    if not options.socp or importlib.util.find_spec("cvxpy") is None:
        del methods[CONES]
    rows: list[dict[str, Any]] = []
    for users, aps in options.sizes:
        network = draw_networks(1, users, aps, ANTENNAS, generator=torch.Generator().manual_seed(0))
        times = {
            name: float(
                np.median(wall_seconds(partial(method, network), SLOW.get(name, options.repeats)))
            )
            for name, method in methods.items()
        }
        rows += [
            {
                "method": name,
                "users": users,
                "aps": aps,
                "p50_ms": 1e3 * seconds,
                "times_icgnn": seconds / times[LEARNED],
            }
            for name, seconds in times.items()
        ]
    text = (
        f"{threads} threads, the network on {device}, one network a call, {ANTENNAS} antennas an AP"
    )
    result = {"threads": threads, "device": device, "rows": rows}
    console.emit(result, as_json=options.as_json, text=f"{text}\n\n{console.table(rows)}")
