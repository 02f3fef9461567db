# SPDX-License-Identifier: Apache-2.0
"""What train and pretrain share: from options to settings, and how it is told."""

from fieldfare.common.commands.train import run_settings
from fieldfare.common.training import TrainSettings

from ..options import PretrainOptions, TrainOptions
from ..training.variants import SHOWN_EVERY


def settings_of(options: TrainOptions | PretrainOptions, *, validate_every: int) -> TrainSettings:
    """How long and how to train."""
    steps = options.steps
    return TrainSettings(
        **run_settings(options),
        warmup_steps=steps // 10,
        weight_decay=0.05,
        betas=(0.9, 0.95),
        clip_norm=1.0,
        ema_decay=0.995,
        checkpoint_every=max(1, min(100, steps // 5)),
        log_every=max(1, min(20, steps // 5)),
        validate_every=validate_every,
    )


def told(options: TrainOptions | PretrainOptions, settings: TrainSettings) -> str:
    """How it was trained, for the card."""
    return (
        f"{settings.steps} steps of {settings.batch_size} flows, AdamW, learning rate "
        f"{settings.learning_rate:g}, {settings.device}; always hidden: {options.hide}; shown "
        f"in one batch of {SHOWN_EVERY} only: {options.optional}"
    )
