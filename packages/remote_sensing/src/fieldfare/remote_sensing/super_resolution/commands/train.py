# SPDX-License-Identifier: Apache-2.0
"""rs-sr train."""

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

from ...rasters.opening import environment
from .. import training
from ..data.degradations import DegradationRange
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
def train(folders: Sequence[Path], options: TrainOptions) -> None:
    """Train, then write `model.safetensors` with its card."""
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of training tiles")
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
        degradations=_degradations(options),
    )
    model = training.train(
        config, folders, settings, data, options.output, start=start, quiet=options.quiet
    )
    if not is_first_process():
        return
    card = ModelCard(
        name=options.output.name,
        task=TASK,
        summary=f"EDiffSR x{config.network.scale}, trained by rs-sr train.",
        config=config.to_dict(),
        data="; ".join(f"{f.name}: {len(list(f.glob('*.tif')))} GeoTIFF tiles" for f in folders)
        + f"; inputs: {data.degradations or 'clean bicubic reductions'}",
        split=f"every {data.holdout}th tile of each folder held out for validation",
        training=f"{settings.steps} steps of {settings.batch_size} crops, {settings.precision}",
        seed=settings.seed,
        date=today(),
    )
    tell_trained(save_trained(options.output, model.network, card), options)


def _degradations(options: TrainOptions) -> DegradationRange | None:
    """What the inputs go through; the published preset stays as it was published."""
    share = options.degraded_share
    if share is None:
        share = 0.5 if options.preset == "small" else 0.0
    if not share:
        return None
    return DegradationRange(
        share=share,
        blur_sigma=options.blur_sigma,
        noise_sigma=options.noise_sigma,
        sharpen_amount=options.sharpen_amount,
        jpeg_quality=options.jpeg_quality,
    )
