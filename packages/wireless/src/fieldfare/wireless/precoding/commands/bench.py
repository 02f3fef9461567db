# SPDX-License-Identifier: Apache-2.0
"""wl-precode bench: time and operations for each method and size, and the budget of a slot."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldfare.common import console
from fieldfare.common.runtime import resolve_device, set_threads

from ...channels.rayleigh import rayleigh
from ...evaluation.timing import wall_seconds
from ...networks.cost import network_macs
from ...networks.models import load_precoder_network
from ...networks.precoder import IcgnnPrecoder
from ...options import LEARNED
from ...signals.cost import macs
from ...signals.selection import greedy_users
from ...signals.wmmse import wmmse
from ..learned import load_precoder
from ..methods import Precoder, baseline, can_serve
from ..options import BASELINES, BenchOptions

SLOT_US = 500
"""Of a slot at 30 kHz subcarrier spacing."""

SLOT_PRECODERS = 69
"""One for each bundle of 4 of the 273 resource blocks in 100 MHz."""

SNR_DB = 10


def bench(options: BenchOptions) -> None:
    """Print the tables."""
    threads = set_threads()
    device = resolve_device(options.device).type
    network, _ = load_precoder_network(options.model)
    precoders = _precoders(network, options, threads)
    rows: list[dict[str, Any]] = []
    slots: list[dict[str, Any]] = []
    power = 10 ** (SNR_DB / 10)
    for users, antennas in options.sizes:
        generator = torch.Generator().manual_seed(0)
        drawn = rayleigh((64, users, antennas), generator)
        tried = 1 + float(greedy_users(drawn, power).sum(-1).double().mean())
        steps = {
            LEARNED: 2 * (len(network.layers) + 1) + tried,
            "greedy": 1 + tried,
            "wmmse": 1 + float(wmmse(drawn, power, 1.0).iterations.double().mean()),
        }
        for name, precoder in precoders.items():
            if not can_serve(name, users, antennas):
                continue
            learned = name.startswith(LEARNED)
            method = LEARNED if learned else name
            operations = macs(
                method,
                users,
                antennas,
                iterations=steps.get(method, 0),
                network=2 * network_macs(network, users) if learned else 0,
            )
            place = {"method": name, "users": users, "antennas": antennas}
            for batch in options.batches:
                H = rayleigh((batch, users, antennas), generator)
                each = _microseconds(precoder, H, power, options.repeats) / batch
                p50, p99 = (float(np.percentile(each, percent)) for percent in (50, 99))
                found = {"batch": batch, "p50_us": p50, "p99_us": p99, "real_macs": operations}
                rows.append(place | found)
            H = rayleigh((SLOT_PRECODERS, users, antennas), generator)
            whole = _microseconds(precoder, H, power, options.repeats)
            slot = float(np.percentile(whole, 99))
            within = "yes" if slot <= SLOT_US else "no"
            slots.append(place | {"slot_p99_us": slot, "within_500_us": within})
    text = "\n".join(
        [
            console.table(rows),
            "",
            f"{SLOT_PRECODERS} precoders (one for each 4 resource blocks of 100 MHz) in one call, "
            f"against the {SLOT_US} us of a slot; {threads} threads, the network on {device}, "
            f"i.i.d. channels, {SNR_DB} dB; wmmse to a relative change of 1e-6:",
            console.table(slots),
        ]
    )
    result = {"threads": threads, "device": device, "rows": rows, "slot": slots}
    console.emit(result, as_json=options.as_json, text=text)


def _precoders(network: IcgnnPrecoder, options: BenchOptions, threads: int) -> dict[str, Precoder]:
    precoders = {name: baseline(name) for name in BASELINES}
    precoders[LEARNED] = load_precoder(
        options.model, guard=True, solver=options.solver, device=options.device
    )
    if options.onnx:
        from ..export import onnx_precoder

        precoders[f"{LEARNED}-onnx"] = onnx_precoder(network, threads)
    return precoders


def _microseconds(precoder: Precoder, H: Tensor, power: float, repeats: int) -> np.ndarray:
    """Of each call."""
    one = H.real.new_ones(len(H))
    return 1e6 * wall_seconds(partial(precoder, H, one * power, one, None), repeats)
