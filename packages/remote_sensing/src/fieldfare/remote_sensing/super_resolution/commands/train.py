# SPDX-License-Identifier: Apache-2.0
"""rs-sr train."""

import dataclasses
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

from ...rasters.opening import environment
from .. import training
from ..networks.ediffsr import EDiffSRConfig
from ..networks.model import TASK, ModelConfig, load_model
from ..options import TrainOptions

SMALL = ModelConfig(
    network=EDiffSRConfig(width=32, encoder_blocks=(1, 1), middle_blocks=10, decoder_blocks=(1, 1)),
    prediction="velocity",
    max_sigma=16 / 255,
    default_steps=2,
    last_time=80.0,
)


@environment()
def train(tiles: Path, options: TrainOptions) -> None:
    """Train, then write `model.safetensors` with its card."""
    if not tiles.is_dir():
        raise InputError(f"{tiles}: no such folder of training tiles")
    small = options.preset == "small"
    config = SMALL if small else ModelConfig()
    config = dataclasses.replace(
        config, network=dataclasses.replace(config.network, cpem=options.cpem)
    )
    start = None
    if options.init:
        model, _ = load_model(options.init)
        config, start = model.config, model.network.state_dict()
    settings = TrainSettings(
        warmup_steps=min(100, options.steps // 10),
        clip_norm=1.0 if small else 0.0,
        ema_decay=0.998 if small else 0.995,
        **run_settings(options),
    )
    data = training.DataSettings(
        patch=options.patch,
        final_share=0.5 if small else 0.0,
        own_share=0.5 if small and options.perceptual_weight else 0.0,
        perceptual_weight=options.perceptual_weight,
    )
    model = training.train(
        config, tiles, settings, data, options.output, start=start, quiet=options.quiet
    )
    if not is_first_process():
        return
    card = ModelCard(
        name=options.output.name,
        task=TASK,
        summary=f"EDiffSR x{config.network.scale}, trained by rs-sr train.",
        config=config.to_dict(),
        data=f"{tiles.name}: {len(list(tiles.glob('*.tif')))} GeoTIFF tiles",
        split=f"every {data.holdout}th tile held out for validation",
        training=f"{settings.steps} steps of {settings.batch_size} crops, {settings.precision}",
        seed=settings.seed,
        date=today(),
    )
    tell_trained(save_trained(options.output, model.network, card), options)
