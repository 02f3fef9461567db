# SPDX-License-Identifier: Apache-2.0
"""rs-buildings bench --encoders: what networks on each family of encoders cost."""

from typing import Any

import numpy as np
import torch

from fieldfare.common import console, efficiency
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ..inference.predict import Predictor
from ..networks.building_network import BuildingNetwork, NetworkConfig
from ..networks.encoders import FAMILIES
from ..options import BenchOptions

BANDS = 3


def config_of(encoder: str, architecture: str = "unetplusplus") -> NetworkConfig:
    """With deep supervision where the encoder has features at stride 2."""
    config = NetworkConfig(architecture=architecture, encoder=encoder)
    try:
        BuildingNetwork(config)
    except ValueError as error:
        if "stride 2" not in str(error):
            raise
        config = NetworkConfig(architecture=architecture, encoder=encoder, deep_supervision=False)
    return config


def bench_encoders(options: BenchOptions) -> None:
    """Print parameters, MACs, time and memory of one tile of U-Net++ on each family's encoder."""
    threads, side = set_threads(), options.tile
    tile = np.random.default_rng(0).random((1, BANDS, side, side), dtype=np.float32)
    rows: list[dict[str, Any]] = []
    with Progress("encoders", len(FAMILIES), unit="encoder", quiet=options.as_json) as bar:
        for number, (family, encoder) in enumerate(FAMILIES.items(), start=1):
            torch.manual_seed(0)
            network = BuildingNetwork(config_of(encoder)).eval()
            cost = efficiency.cost(network, tile.shape)
            predictor = Predictor(network, device=options.device, precision=options.precision)
            timing = efficiency.bench(
                predictor, tile, np.zeros((1, 2), np.int64), repeats=options.repeats
            )
            peak = timing.peak_bytes
            rows.append(
                {
                    "family": family,
                    "encoder": encoder,
                    "parameters": cost.parameters,
                    "gmacs": cost.macs / 1e9,
                    "median_s": timing.median_s,
                    "peak_mb": None if peak is None else peak / 2**20,
                }
            )
            bar.update(number)
    result = {
        "network": "U-Net++, random weights",
        "device": str(predictor.device),
        "precision": str(predictor.dtype).removeprefix("torch."),
        "threads": threads,
        "tile": side,
        "encoders": rows,
    }
    heading = ", ".join(f"{name} {value}" for name, value in result.items() if name != "encoders")
    console.emit(result, as_json=options.as_json, text=f"{heading}\n{console.table(rows)}")
