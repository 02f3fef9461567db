# SPDX-License-Identifier: Apache-2.0
"""rs-dehaze train."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from fieldfare.common import console
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
from ..data.haze import HazeRange
from ..networks.model import PRESETS, TASK, load_model
from ..options import TrainOptions
from ..training import run as training


@environment()
def train(folders: Sequence[Path], options: TrainOptions) -> None:
    """Train, then write `model.safetensors` with its card."""
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of training tiles")
    config, start = PRESETS[options.preset], None
    if options.init:
        model, _ = load_model(options.init)
        config, start = model.config, model.state_dict()
    settings = TrainSettings(
        warmup_steps=min(100, options.steps // 10),
        clip_norm=0.5,
        ema_decay=0.998,
        **run_settings(options),
    )
    least = HazeRange().thickness[0]
    haze = dataclasses.replace(
        HazeRange(),
        clear_share=options.clear_share,
        cloud_share=options.cloud_share,
        thickness=(min(least, options.thickness), options.thickness),
    )
    data = training.DataSettings(patch=options.patch, haze=haze)
    trained, knowledge = training.train(
        config,
        folders,
        settings,
        data,
        options.output,
        start=start,
        quiet=options.quiet,
        told=functools.partial(console.say, quiet=options.quiet),
    )
    if not is_first_process():
        return
    card = ModelCard(
        name=options.output.name,
        task=TASK,
        summary="DEA-Net, trained by rs-dehaze train.",
        config=config.to_dict(),
        data="; ".join(f"{f.name}: {len(list(f.glob('*.tif')))} GeoTIFF tiles" for f in folders)
        + f"; under synthetic haze: {haze}",
        split=f"every {data.holdout}th tile of each folder held out for validation",
        training=f"{settings.steps} steps of {settings.batch_size} crops, {settings.precision}",
        seed=settings.seed,
        date=today(),
    )
    tell_trained(save_trained(options.output, trained, card, knowledge), options)
