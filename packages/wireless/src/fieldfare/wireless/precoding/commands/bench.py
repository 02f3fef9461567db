# SPDX-License-Identifier: Apache-2.0
"""wl-precode bench: time and operations for each method and size, and the budget of a slot."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldfare.common import console
from fieldfare.common.runtime import set_threads

from ..channels.rayleigh import rayleigh
from ..evaluation.timing import wall_seconds
from ..networks.cost import network_macs
from ..networks.models import load_precoder_network
from ..signals.cost import macs
from ..signals.wmmse import wmmse
from .export import onnx_precoder
from .learned import load_precoder
from .methods import BASELINES, LEARNED, Precoder, baseline

SLOT_US = 500
"""Of a slot at 30 kHz subcarrier spacing."""

SLOT_PRECODERS = 69
"""One for each bundle of 4 of the 273 resource blocks in 100 MHz."""

SNR_DB = 10


def bench(options: Mapping[str, Any]) -> None:
    """Print the tables."""
    threads = set_threads()
    precoders = {name: baseline(name) for name in BASELINES}
    precoders[LEARNED] = load_precoder(options["model"], guard=True, solver=options["solver"])
    if options["onnx"]:
        largest = max(users for users, _ in options["sizes"])
        precoders[f"{LEARNED}-onnx"] = onnx_precoder(options["model"], 2 * largest, threads)
    network, _ = load_precoder_network(options["model"])
    rows: list[dict[str, Any]] = []
    slots: list[dict[str, Any]] = []
    power = 10 ** (SNR_DB / 10)
    for users, antennas in options["sizes"]:
        generator = torch.Generator().manual_seed(0)
        iterations = float(
            wmmse(rayleigh((64, users, antennas), generator), power, 1.0).iterations.double().mean()
        )
        for name, precoder in precoders.items():
            if name.startswith("zf") and users > antennas:
                continue
            learned = name.startswith(LEARNED)
            operations = macs(
                LEARNED if learned else name,
                users,
                antennas,
                iterations=len(network.layers) + 1 if learned else iterations,
                network=network_macs(options["model"], users) if learned else 0,
            )
            for batch in options["batches"]:
                H = rayleigh((batch, users, antennas), generator)
                seconds = wall_seconds(partial(_precode, precoder, H, power), options["repeats"])
                each = 1e6 * seconds / batch
                rows.append(
                    {
                        "method": name,
                        "users": users,
                        "antennas": antennas,
                        "batch": batch,
                        "p50_us": float(np.percentile(each, 50)),
                        "p99_us": float(np.percentile(each, 99)),
                        "real_macs": operations,
                    }
                )
            H = rayleigh((SLOT_PRECODERS, users, antennas), generator)
            seconds = wall_seconds(partial(_precode, precoder, H, power), options["repeats"])
            slot = 1e6 * float(np.percentile(seconds, 99))
            slots.append(
                {
                    "method": name,
                    "users": users,
                    "antennas": antennas,
                    "slot_p99_us": slot,
                    "within_500_us": "yes" if slot <= SLOT_US else "no",
                }
            )
    text = "\n".join(
        [
            console.table(rows),
            "",
            f"{SLOT_PRECODERS} precoders (one for each 4 resource blocks of 100 MHz) in one call, "
            f"against the {SLOT_US} us of a slot; {threads} threads, i.i.d. channels, "
            f"{SNR_DB} dB; wmmse to a relative change of 1e-6:",
            console.table(slots),
        ]
    )
    result = {"threads": threads, "rows": rows, "slot": slots}
    console.emit(result, as_json=options["as_json"], text=text)


def _precode(precoder: Precoder, H: Tensor, power: float) -> object:
    one = H.real.new_ones(len(H))
    return precoder(H, one * power, one, None)
