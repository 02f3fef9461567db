# SPDX-License-Identifier: Apache-2.0
"""med-seg models, bench and export."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import console, efficiency, files
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import available, read_card

from ..inference.predict import Predictor
from ..networks.config import NetworkConfig
from ..networks.export import export_onnx
from ..networks.models import TASK, describe, load_model


def models(as_json: bool) -> None:
    """Print every packaged model's card in short."""
    lines, listed = [], []
    for path in available(TASK).values():
        card = read_card(path)
        config = NetworkConfig.from_dict(card.config)
        lines += [card.name, f"  {card.summary}", f"  {describe(config)}"]
        lines += [f"  {m.name}: {m.value:.4g} ({m.definition})" for m in card.metrics]
        lines += [f"  trained on: {card.data}", f"  limits: {card.limits}"]
        lines.append(f"  card: {path.with_suffix('.md')}")
        listed.append(dataclasses.asdict(card) | {"bytes": path.stat().st_size})
    lines.append("not a medical device")
    console.emit({"models": listed}, as_json=as_json, text="\n".join(lines))


def bench(options: dict[str, Any]) -> None:
    """Print parameters, MACs, time, speed and memory of one tile."""
    threads = set_threads()
    network, card = load_model(options["model"])
    predictor = Predictor(network, device=options["device"], precision=options["precision"])
    side = options["tile"]
    shape = (side, side, side if predictor.ndim == 3 else 1)
    tile = np.random.default_rng(0).normal(size=(1, 4, *shape)).astype(np.float32)
    cost = efficiency.cost(network.cpu(), (1, 4, *shape[: predictor.ndim]))
    network.to(predictor.device)
    timing = efficiency.bench(predictor, tile, repeats=options["repeats"])
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
    console.emit(result, as_json=options["as_json"], text=console.table(rows))


def export(output: Path, model: str, tile: int, overwrite: bool) -> None:
    """Write ONNX and say how closely it agrees."""
    files.check_output(output, overwrite=overwrite)
    network, card = load_model(model)
    difference = export_onnx(network, output, tile=tile)
    console.say(f"{card.name}: ONNX Runtime and torch agree within {difference:.1e}")
    console.emit({}, as_json=False, text=str(output))
