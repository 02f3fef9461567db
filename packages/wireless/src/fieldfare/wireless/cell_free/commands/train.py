# SPDX-License-Identifier: Apache-2.0
"""wl-power train."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fieldfare.common import console
from fieldfare.common.runtime import resolve_device

from ..networks.models import load_power_network, save_model
from ..training.run import train_power, training_settings
from ..training.samples import NetworkBatches, NetworkSettings


def train(options: Mapping[str, Any]) -> None:
    """Train, then write `model.safetensors` with its card."""
    folder: Path = options["output"]
    start = load_power_network(options["init"])[0] if options["init"] else None
    settings = training_settings(
        options["steps"],
        options["learning_rate"],
        options["seed"],
        device=resolve_device(options["device"]).type,
    )
    data = NetworkSettings()
    network = train_power(
        NetworkBatches(data, options["batch"]),
        settings,
        folder,
        objective=options["objective"],
        width=options["width"],
        layers=options["layers"],
        start=start,
        quiet=options["quiet"],
    )
    if torch.distributed.is_initialized() and torch.distributed.get_rank():
        return
    target = folder / "model.safetensors"
    save_model(
        target,
        network,
        f"ICGNN power allocation for cell-free networks of any size: {options['objective']}.",
        data=f"networks drawn for every step: {data}",
        data_licence="none: drawn at random",
        split="none: every network is new",
        training=f"wl-power train: {options['steps']} steps of {options['batch']} networks, "
        f"learning rate {options['learning_rate']:g}"
        + (f"; from {Path(options['init']).name}" if options["init"] else ""),
        limits="sizes, gains and pilot reuse far from those of the training; compare with max-min",
        seed=options["seed"],
    )
    console.emit({"model": target}, as_json=options["as_json"], text=str(target))
