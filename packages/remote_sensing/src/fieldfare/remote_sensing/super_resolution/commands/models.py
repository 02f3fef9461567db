# SPDX-License-Identifier: Apache-2.0
"""rs-sr models and bench."""

import dataclasses

import numpy as np

from fieldfare.common import console, efficiency
from fieldfare.common.commands.models import list_models
from fieldfare.common.console.shared import JsonOptions
from fieldfare.common.runtime import set_threads

from ..inference import restore
from ..networks.model import TASK, load_model
from ..options import BenchOptions


def models(options: JsonOptions) -> None:
    """Print every packaged model's card in short."""
    baseline = f"{restore.BICUBIC}\n  The baseline: bicubic enlargement, by the same path."
    list_models(TASK, options, baseline=baseline)


def bench(options: BenchOptions) -> None:
    """Print parameters, MACs and the time of one tile."""
    threads = set_threads()
    model, card = load_model(options.model)
    side = options.tile * model.config.network.scale
    image = (1, model.config.network.channels, side, side)
    cost = efficiency.cost(model.network, image, image, (1,))
    restorer = restore.DiffusionRestorer(
        model, steps=options.steps, device=options.device, precision=options.precision
    )
    margin = options.tile + 2 * restore.MARGIN
    low = np.random.default_rng(0).random((1, image[1], margin, margin), dtype=np.float32)
    origins = np.zeros((1, 2), np.int64)
    timing = efficiency.bench(lambda: restorer(low, origins, 0), repeats=options.repeats)
    result = {
        "model": card.name,
        "parameters": cost.parameters,
        "macs_per_step": cost.macs,
        "steps": restorer.steps,
        "threads": threads,
        **dataclasses.asdict(timing),
    }
    text = "\n".join(f"{name}: {value}" for name, value in result.items())
    console.emit(result, as_json=options.as_json, text=text)
