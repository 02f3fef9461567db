# SPDX-License-Identifier: Apache-2.0
"""rs-detect models and bench."""

from typing import Any

import numpy as np

from fieldfare.common import console, efficiency
from fieldfare.common.commands.models import list_models
from fieldfare.common.console.shared import JsonOptions
from fieldfare.common.errors import InputError
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import ModelCard

from ..inference.predict import Predictor
from ..inference.tiling import COARSEST
from ..networks.leyolo import DetectorConfig, LeYOLO
from ..networks.models import TASK, load_model
from ..options import BenchOptions

COST_SIDE = 512
"""Side in pixels of the tile whose cost is listed."""


def models(options: JsonOptions) -> None:
    """Print every packaged model's card in short, with what a tile costs."""

    def more(card: ModelCard) -> dict[str, Any]:
        config = DetectorConfig.from_dict(card.config)
        return {"classes": ", ".join(config.classes), "cost": [_cost(config, COST_SIDE)]}

    list_models(TASK, options, more=more)


def _cost(config: DetectorConfig, side: int) -> dict[str, Any]:
    cost = efficiency.cost(LeYOLO(config), (1, config.in_channels, side, side))
    return {"tile": side, "parameters": cost.parameters, "gmacs": cost.macs / 1e9}


def bench(options: BenchOptions) -> None:
    """Print parameters, MACs, time and speed of one tile."""
    if options.tile % COARSEST:
        raise InputError(f"--tile {options.tile}: must be a multiple of {COARSEST}")
    threads = set_threads()
    network, card = load_model(options.model)
    side = options.tile
    predictor = Predictor(network, device=options.device, precision=options.precision)
    shape = (1, network.config.in_channels, side, side)
    tile = np.random.default_rng(0).random(shape, dtype=np.float32)
    timing = efficiency.bench(predictor, tile, network.config.threshold, repeats=options.repeats)
    result = {
        "model": card.name,
        "device": str(predictor.device),
        "precision": str(predictor.dtype).removeprefix("torch."),
        "threads": threads,
        **_cost(network.config, side),
        "median_s": timing.median_s,
        "mpix_per_s": side * side / 1e6 / timing.median_s,
        "peak_mb": None if timing.peak_bytes is None else timing.peak_bytes / 2**20,
    }
    text = "\n".join(f"{name}: {value}" for name, value in result.items())
    console.emit(result, as_json=options.as_json, text=text)
