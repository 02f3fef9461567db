# SPDX-License-Identifier: Apache-2.0
"""med-seg train."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fieldfare.common.commands.train import (
    is_first_process,
    run_settings,
    save_trained,
    tell_trained,
    today,
)
from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import ModelCard

from ..data.patches import DataSettings
from ..data.table import LabelledCase, parse_fold, read_table
from ..networks.config import GROUPS, PRESETS, NetworkConfig
from ..networks.create import Network
from ..networks.models import TASK, describe, load_model
from ..options import TrainOptions
from ..training import run as training

LIMITS = (
    "Not a medical device: for research only. It knows skull-stripped adult brains of the kind it "
    "was trained on; what it finds elsewhere means nothing."
)


def train(table: Path, options: TrainOptions) -> None:
    """Train, then write `model.safetensors` with its card."""
    config, start = _network(options)
    data = _data(options, config)
    config = dataclasses.replace(config, patch=data.size)
    cases = read_table(
        table,
        scheme=options.labels,
        fold=parse_fold(options.fold),
        modalities=config.modalities,
        allow_missing=config.modality_dropout,
    )
    settings = _settings(options)
    network = training.train(
        config,
        cases,
        settings,
        data,
        options.output,
        synthetic=options.synthetic,
        start=start.state_dict() if start else None,
        memory=options.memory,
        prepared=options.prepared,
        force=options.force,
        quiet=options.quiet,
    )
    if is_first_process():
        card = _card(config, table, cases, settings, options)
        tell_trained(save_trained(options.output, network, card), options)


def _network(options: TrainOptions) -> tuple[NetworkConfig, Network | None]:
    """The network's shape, and the model to start from, if any."""
    start = load_model(options.init)[0] if options.init else None
    config = start.config if start else _shape(options)
    chosen = [name for name in ("encoder", "norm", "attention", "groups") if getattr(options, name)]
    if start and chosen:
        raise InputError(f"--{chosen[0]}: of a fresh network, and --init gives one; leave one out")
    return (
        dataclasses.replace(
            config,
            spacing=options.spacing or config.spacing,
            modality_dropout=bool(options.modality_dropout) or config.modality_dropout,
        ),
        start,
    )


def _shape(options: TrainOptions) -> NetworkConfig:
    """The preset, with what was chosen instead."""
    preset = PRESETS[options.preset]
    try:
        return dataclasses.replace(
            preset,
            encoder=options.encoder or preset.encoder,
            norm=options.norm or preset.norm,
            attention=options.attention or preset.attention,
            group_size=GROUPS[options.groups] if options.groups else preset.group_size,
        )
    except ValueError as error:
        raise InputError(f"--preset {options.preset}: {error}") from None


def _data(options: TrainOptions, config: NetworkConfig) -> DataSettings:
    size = options.patch_size
    return DataSettings(
        size=size * config.ndim if len(size) == 1 else size,
        foreground=options.foreground,
        modality_dropout=options.modality_dropout,
        region_weights=options.region_weights,
    )


def _settings(options: TrainOptions) -> TrainSettings:
    steps = options.steps
    every = options.validate_every or max(1, min(200, steps // 5))
    return TrainSettings(
        **run_settings(options),
        warmup_steps=min(50, steps // 10),
        weight_decay=1e-2,
        clip_norm=1.0,
        ema_decay=max(0.995, min(0.999, 1 - 10 / steps)),
        checkpoint_every=max(1, min(100, steps // 5)),
        log_every=min(20, every),
        validate_every=every,
    )


def _card(
    config: NetworkConfig,
    table: Path,
    cases: Sequence[LabelledCase],
    settings: TrainSettings,
    options: TrainOptions,
) -> ModelCard:
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for case in cases:
        counts[case.split] += 1
    fold = f", fold {options.fold}" if options.fold else ""
    lacking = options.modality_dropout
    return ModelCard(
        name=options.output.name,
        task=TASK,
        summary=f"Brain tumour regions WT, TC, ET in MRI: {describe(config)}.",
        config=config.to_dict(),
        data=_data_said(table, counts["train"], options.synthetic),
        split=(
            f"by patient{fold}: {counts['val']} cases for validation, {counts['test']} for test"
        ),
        training=(
            f"trained by med-seg train, Dice and cross-entropy of each region; {settings.steps} "
            f"steps of {settings.batch_size} patches of {'x'.join(map(str, config.patch))}, "
            f"learning rate {settings.learning_rate:g}, {settings.precision}, {settings.device}"
            + (f"; modalities dropped in {lacking:.0%} of the patches" if lacking else "")
            + (f"; from {Path(options.init).name}" if options.init else "")
        ),
        limits=LIMITS,
        seed=settings.seed,
        date=today(),
    )


def _data_said(table: Path, cases: int, synthetic: float) -> str:
    drawn = f"phantoms drawn on the way ({synthetic:.0%} of the patches)"
    said = f"{table.name}: {cases} cases"
    return drawn if synthetic == 1 else f"{said}; {drawn}" if synthetic else said
