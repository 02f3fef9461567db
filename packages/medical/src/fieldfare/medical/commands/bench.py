# SPDX-License-Identifier: Apache-2.0
"""med-seg bench."""

import numpy as np

from fieldfare.common import console, efficiency
from fieldfare.common.runtime import set_threads

from ..inference.predict import Predictor
from ..networks.models import describe, load_model
from ..options import BenchOptions


def bench(options: BenchOptions) -> None:
    """Print parameters, MACs, time, speed and memory of one tile."""
    threads = set_threads()
    network, card = load_model(options.model)
    predictor = Predictor(network, device=options.device, precision=options.precision)
    side = options.tile
    shape = (side, side, side if predictor.ndim == 3 else 1)
    tile = np.random.default_rng(0).normal(size=(1, 4, *shape)).astype(np.float32)
    cost = efficiency.cost(network.cpu(), (1, 4, *shape[: predictor.ndim]))
    network.to(predictor.device)
    timing = efficiency.bench(predictor, tile, repeats=options.repeats)
    voxels = int(np.prod(shape))
    result = {
        "model": card.name,
        "network": describe(predictor.config),
        "device": str(predictor.device),
        "precision": str(predictor.dtype).removeprefix("torch."),
        "threads": threads,
        "tile": list(shape),
        "spacing_mm": predictor.config.spacing,
        "parameters": cost.parameters,
        "gmacs": cost.macs / 1e9,
        "median_s": timing.median_s,
        "iqr_s": timing.iqr_s,
        "mvoxel_per_s": voxels / 1e6 / timing.median_s,
        "peak_mb": None if timing.peak_bytes is None else timing.peak_bytes / 2**20,
    }
    shown = {**result, "tile": "x".join(map(str, shape))}
    rows = [{"": name, " ": value} for name, value in shown.items()]
    console.emit(result, as_json=options.as_json, text=console.table(rows))
