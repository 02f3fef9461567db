# SPDX-License-Identifier: Apache-2.0
"""rs-dehaze models and bench."""

import dataclasses

import numpy as np

from fieldfare.common import console, efficiency
from fieldfare.common.blocks.fuse import fuse
from fieldfare.common.commands.models import list_models
from fieldfare.common.console.shared import JsonOptions
from fieldfare.common.errors import InputError
from fieldfare.common.runtime import set_threads

from ..inference.dehazers import DARK_CHANNEL, NetworkDehazer
from ..networks.model import TASK, load_model
from ..options import BenchOptions


def models(options: JsonOptions) -> None:
    """Print every packaged model's card in short."""
    baseline = f"{DARK_CHANNEL}\n  The baseline: dark channel prior and guided filter."
    list_models(TASK, options, baseline=baseline)


def bench(options: BenchOptions) -> None:
    """Print parameters, MACs and the time of one tile, of the folded network."""
    threads = set_threads()
    model, card = load_model(options.model)
    if options.tile < model.least_side:
        raise InputError(f"--tile {options.tile}: this model takes {model.least_side} or more")
    shape = (1, model.config.channels, options.tile, options.tile)
    cost = efficiency.cost(fuse(model), shape)
    dehazer = NetworkDehazer(model, device=options.device, precision=options.precision)
    tile = np.random.default_rng(0).random(shape, dtype=np.float32)
    timing = efficiency.bench(lambda: dehazer(tile), repeats=options.repeats)
    result = {
        "model": card.name,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "threads": threads,
        **dataclasses.asdict(timing),
    }
    text = "\n".join(f"{name}: {value}" for name, value in result.items())
    console.emit(result, as_json=options.as_json, text=text)
