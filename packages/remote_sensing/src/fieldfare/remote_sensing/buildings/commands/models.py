# SPDX-License-Identifier: Apache-2.0
"""rs-buildings models and bench."""

import dataclasses
from typing import Any

import numpy as np

from fieldfare.common import console, efficiency
from fieldfare.common.commands.models import list_models
from fieldfare.common.console.shared import JsonOptions
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import ModelCard

from ..inference.predict import predictor_of
from ..networks.building_network import BuildingNetwork, NetworkConfig, depths_of
from ..networks.models import TASK, load_any, spoken
from ..options import BenchOptions

COST_SIDE = 512
"""Side in pixels of the tile whose cost is listed."""


def models(options: JsonOptions) -> None:
    """Print every packaged model's card in short, with what each depth costs."""

    def more(card: ModelCard) -> dict[str, Any]:
        config = NetworkConfig.from_dict(card.config)
        told = {"experts": f"{spoken(config.experts)} m per pixel"} if config.experts else {}
        return told | {"depths": depth_costs(config)}

    list_models(TASK, options, more=more)


def depth_costs(config: NetworkConfig) -> list[dict[str, Any]]:
    """Parameters and multiply-accumulates of a 512 x 512 tile at each depth; of one expert."""
    rows, config = [], dataclasses.replace(config, experts=())
    for depth in depths_of(config):
        shape = (1, config.in_channels, COST_SIDE, COST_SIDE)
        cost = efficiency.cost(BuildingNetwork(config, depth), shape)
        rows.append(
            {
                "depth": f"L{depth}",
                "parameters": cost.parameters,
                "gmacs": cost.macs / 1e9,
            }
        )
    return rows


def bench(options: BenchOptions) -> None:
    """Print parameters, MACs, time and speed of one tile at each depth."""
    threads = set_threads()
    network, card = load_any(options.model)
    side, rows = options.tile, []
    tile = np.random.default_rng(0).random(
        (1, network.config.in_channels, side, side), dtype=np.float32
    )
    for row, depth in zip(depth_costs(network.config), depths_of(network.config), strict=True):
        predictor = predictor_of(
            network if depth == network.depth else network.cut(depth),
            device=options.device,
            precision=options.precision,
        )
        timing = efficiency.bench(
            predictor, tile, np.zeros((1, 2), np.int64), repeats=options.repeats
        )
        rows.append(
            row
            | {
                "median_s": timing.median_s,
                "mpix_per_s": side * side / 1e6 / timing.median_s,
                "peak_mb": None if timing.peak_bytes is None else timing.peak_bytes / 2**20,
            }
        )
    result = {
        "model": card.name,
        "device": str(predictor.device),
        "precision": str(predictor.dtype).removeprefix("torch."),
        "threads": threads,
        "tile": side,
        "depths": rows,
    }
    heading = ", ".join(f"{name} {value}" for name, value in result.items() if name != "depths")
    console.emit(result, as_json=options.as_json, text=f"{heading}\n{console.table(rows)}")
