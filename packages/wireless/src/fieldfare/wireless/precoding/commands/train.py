# SPDX-License-Identifier: Apache-2.0
"""wl-precode train."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.runtime import resolve_device

from ..networks.models import load_precoder_network, save_model
from ..training.run import train_precoder, training_settings
from ..training.samples import CellBatches, CellSettings


def train(options: Mapping[str, Any]) -> None:
    """Train, then write `model.safetensors` with its card."""
    low, high = options["snr_range"]
    if low > high:
        raise InputError(f"--snr-range {low:g},{high:g}: the lower end comes first")
    data = CellSettings(
        users=tuple(range(2, options["max_users"] + 1)),
        max_antennas=options["max_antennas"],
        snr_db=(low, high),
        correlated=options["correlated"],
        csi_error=options["csi_error"],
    )
    folder: Path = options["output"]
    start = load_precoder_network(options["init"])[0] if options["init"] else None
    settings = training_settings(
        options["steps"],
        options["learning_rate"],
        options["seed"],
        device=resolve_device(options["device"]).type,
    )
    network = train_precoder(
        CellBatches(data, options["batch"]),
        settings,
        folder,
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
        "ICGNN precoder for any number of users and antennas.",
        data=f"channels drawn for every step: 2 to {options['max_users']} users, up to "
        f"{options['max_antennas']} antennas, {low:g} to {high:g} dB, a share of "
        f"{options['correlated']:g} correlated, error of the estimates {options['csi_error']:g}",
        data_licence="none: drawn at random",
        split="none: every channel is new",
        training=f"wl-precode train: {options['steps']} steps of {options['batch']} channels, "
        f"learning rate {options['learning_rate']:g}"
        + (f"; from {Path(options['init']).name}" if options["init"] else ""),
        limits="sizes, correlation and SNR far from those of the training; compare with wmmse",
        seed=options["seed"],
    )
    console.emit({"model": target}, as_json=options["as_json"], text=str(target))
