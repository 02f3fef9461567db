# SPDX-License-Identifier: Apache-2.0
"""med-seg train."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fieldfare.common import console, files
from fieldfare.common.runtime import resolve_device, resolve_precision
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import ModelCard, save_model_file

from ..data.patches import DataSettings
from ..data.table import LabelledCase, parse_fold, read_table
from ..networks.config import PRESETS, NetworkConfig
from ..networks.models import TASK, describe, load_model
from ..training import run as training

LIMITS = (
    "Not a medical device: for research only. It knows skull-stripped adult brains of the kind it "
    "was trained on; what it finds elsewhere means nothing."
)


def train(table: Path, folder: Path, options: dict[str, Any]) -> None:
    """Train, then write `model.safetensors` with its card."""
    config, start = _network(options)
    data = _data(options, config)
    config = dataclasses.replace(config, patch=data.size)
    cases = read_table(
        table,
        scheme=options["labels"],
        fold=parse_fold(options["fold"]),
        modalities=config.modalities,
        allow_missing=config.modality_dropout,
    )
    settings = _settings(options)
    network = training.train(
        config,
        cases,
        settings,
        data,
        folder,
        start=start.state_dict() if start else None,
        memory=options["memory"],
        prepared=options["prepared"],
        quiet=options["quiet"],
    )
    if torch.distributed.is_initialized() and torch.distributed.get_rank():
        return  # the first process writes for all
    card = _card(config, table, cases, settings, folder, options)
    target = folder / "model.safetensors"
    save_model_file(target, network.state_dict(), card)
    files.write_text(folder / "model.md", card.to_markdown())
    console.emit({"model": target}, as_json=options["as_json"], text=str(target))


def _network(options: Mapping[str, Any]) -> tuple[NetworkConfig, nn.Module | None]:
    """The network's shape, and the model to start from, if any."""
    changes: dict[str, Any] = {}
    if options["spacing"]:
        changes["spacing"] = options["spacing"]
    if options["modality_dropout"]:
        changes["modality_dropout"] = True
    if options["init"]:
        start, _ = load_model(options["init"])
        config: Any = start.config
        return dataclasses.replace(config, **changes), start
    return dataclasses.replace(PRESETS[options["preset"]], **changes), None


def _data(options: Mapping[str, Any], config: NetworkConfig) -> DataSettings:
    size = options["patch_size"]
    return DataSettings(
        size=size * config.ndim if len(size) == 1 else size,
        foreground=options["foreground"],
        modality_dropout=options["modality_dropout"],
        region_weights=options["region_weights"],
    )


def _settings(options: Mapping[str, Any]) -> TrainSettings:
    steps = options["steps"]
    every = max(1, min(200, steps // 5))
    device = resolve_device(options["device"])
    precision = resolve_precision(options["precision"], device)
    return TrainSettings(
        steps=steps,
        batch_size=options["batch"],
        learning_rate=options["learning_rate"],
        warmup_steps=min(50, steps // 10),
        weight_decay=1e-2,
        clip_norm=1.0,
        ema_decay=0.995,
        seed=options["seed"],
        precision="bf16" if precision == torch.bfloat16 else "fp32",
        device=device.type,
        devices=options["devices"],
        num_nodes=options["num_nodes"],
        workers=options["workers"],
        checkpoint_every=max(1, min(100, steps // 5)),
        log_every=min(20, every),
        validate_every=every,
    )


def _card(
    config: NetworkConfig,
    table: Path,
    cases: Sequence[LabelledCase],
    settings: TrainSettings,
    folder: Path,
    options: Mapping[str, Any],
) -> ModelCard:
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for case in cases:
        counts[case.split] += 1
    fold = f", fold {options['fold']}" if options["fold"] else ""
    lacking = options["modality_dropout"]
    return ModelCard(
        name=folder.name,
        task=TASK,
        summary=f"Brain tumour regions WT, TC, ET in MRI: {describe(config)}.",
        config=config.to_dict(),
        data=f"{table.name}: {counts['train']} cases",
        split=(
            f"by patient{fold}: {counts['val']} cases for validation, {counts['test']} for test"
        ),
        training=(
            f"trained by med-seg train, Dice and cross-entropy of each region; {settings.steps} "
            f"steps of {settings.batch_size} patches of {'x'.join(map(str, config.patch))}, "
            f"learning rate {settings.learning_rate:g}, {settings.precision}, {settings.device}"
            + (f"; modalities dropped in {lacking:.0%} of the patches" if lacking else "")
            + (f"; from {Path(options['init']).name}" if options["init"] else "")
        ),
        limits=LIMITS,
        seed=settings.seed,
        date=datetime.date.today().isoformat(),
    )
