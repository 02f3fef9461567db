# SPDX-License-Identifier: Apache-2.0
"""wl-power bench: time of every allocation for each size."""

import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from fieldfare.common import console
from fieldfare.common.runtime import set_threads

from ..channels.drops import draw_networks
from ..evaluation.timing import wall_seconds
from .learned import load_allocation
from .methods import BASELINES, LEARNED, Allocation

SLOW = {"max-min": 3, "max-min-gradient": 3, "sum-rate": 3}
"""Timed calls of what takes seconds."""

ANTENNAS = 4


def bench(options: Mapping[str, Any]) -> None:
    """Print the table."""
    threads = set_threads()
    methods: dict[str, Allocation] = {LEARNED: load_allocation(options["model"]), **BASELINES}
    if not options["socp"] or importlib.util.find_spec("cvxpy") is None:
        del methods["max-min"]
    rows: list[dict[str, Any]] = []
    for users, aps in options["sizes"]:
        network = draw_networks(1, users, aps, ANTENNAS, generator=torch.Generator().manual_seed(0))
        times = {
            name: float(
                np.median(
                    wall_seconds(partial(method, network), SLOW.get(name, options["repeats"]))
                )
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
    text = f"{threads} threads, one network a call, {ANTENNAS} antennas an AP\n\n"
    result = {"threads": threads, "rows": rows}
    console.emit(result, as_json=options["as_json"], text=text + console.table(rows))
