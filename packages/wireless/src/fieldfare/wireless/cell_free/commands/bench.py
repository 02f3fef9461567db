# SPDX-License-Identifier: Apache-2.0
"""wl-power bench: time of every allocation for each size."""

import importlib.util
import operator
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from fieldfare.common import console
from fieldfare.common.runtime import resolve_device, set_threads

from ...channels.drops import DropSettings, draw_networks
from ...evaluation.timing import wall_seconds
from ...options import LEARNED
from ...signals.cell_free import CellFree
from ...signals.cooperation import Precoding, draw_realisations, precoders
from ..cooperation import crossing
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
    blocks: list[dict[str, Any]] = []
    for users, aps in options.sizes:
        network = draw_networks(
            1,
            users,
            aps,
            ANTENNAS,
            serving_aps=options.serving,
            clusters=options.clusters,
            settings=DropSettings(pilots=options.pilots),
            generator=torch.Generator().manual_seed(0),
        )
        place = {"users": users, "aps": aps}
        times = {
            name: float(
                np.median(wall_seconds(partial(method, network), SLOW.get(name, options.repeats)))
            )
            for name, method in methods.items()
        }
        rows += [
            {"method": name}
            | place
            | {"p50_ms": 1e3 * seconds, "times_icgnn": seconds / times[LEARNED]}
            for name, seconds in times.items()
        ]
        for precoding in dict.fromkeys(options.precodings):
            blocks.append({"precoding": precoding} | place | _block(network, precoding, options))
    text = (
        f"{threads} threads, the network on {device}, one network a call, {ANTENNAS} antennas an AP"
    )
    block = (
        f"precoders of a coherence block of {options.block} samples, {options.pilots} of them"
        " pilots; complex numbers over all fronthaul links:"
    )
    result = {"threads": threads, "device": device, "rows": rows, "blocks": blocks}
    shown = f"{text}\n\n{console.table(rows)}\n\n{block}\n{console.table(blocks)}"
    console.emit(result, as_json=options.as_json, text=shown)


def _block(network: CellFree, precoding: str, options: BenchOptions) -> dict[str, float]:
    """Time of the precoders of one realisation, and what crosses the fronthaul."""
    kind = cast(Precoding, precoding)
    one = network.map(operator.itemgetter(0))
    estimate = draw_realisations(one, 1, torch.Generator().manual_seed(0)).estimate
    uplink = float(one.power.mean()) / 2 if options.uplink_power is None else options.uplink_power
    seconds = wall_seconds(partial(precoders, one, estimate, kind, uplink), options.repeats)
    data, pilots = crossing(network, kind, options)[0].tolist()
    return {
        "p50_ms": 1e3 * float(np.median(seconds)),
        "fronthaul_data": data,
        "fronthaul_pilots": pilots,
    }
