# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: memory as planned, time from one measured tile."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fieldfare.common.commands import budget
from fieldfare.common.commands.infer import seconds_of

from ...rasters.extent import held_by
from ..inference import run as inference
from ..networks.models import TASK
from ..options import DEFAULT_MODEL, InferOptions

OUTLINING = 0.25
"""Seconds of reading, joining and outlining a tile, as a share of predicting it at full depth."""


def within(
    inputs: Sequence[Path],
    options: InferOptions,
    settings_of: Callable[[InferOptions], inference.InferSettings],
) -> tuple[InferOptions, budget.Plan]:
    """The options of the best variant that fits, for all scenes together."""
    full: list[float] = []

    def memory(chosen: InferOptions) -> int:
        settings = settings_of(chosen)
        predictor = settings.predictor()
        most = 0
        for path in inputs:
            job = inference.prepare(path, settings, predictor)
            with job.scene:
                most = max(most, job.memory)
        return most * min(chosen.workers, len(inputs))

    def seconds(chosen: InferOptions) -> float:
        settings = settings_of(chosen)
        predictor = settings.predictor()
        count = chosen.batch or predictor.batch
        side = settings.tile
        tiles = np.zeros((count, predictor.config.in_channels, side, side), np.float32)
        starts = np.zeros((count, 2), np.int64)
        one = seconds_of(lambda: predictor(tiles, starts)) / count
        full.append(one)  # the variants come the best, and so the slowest, first
        tiles_held = 0
        for path in inputs:
            job = inference.prepare(path, settings, predictor)
            with job.scene as scene:
                tiles_held += held_by(scene, job.tiles, shift=settings.shift).tiles
        return tiles_held * (one + OUTLINING * full[0]) / min(chosen.workers, len(inputs))

    return budget.plan(
        TASK,
        options,
        memory_of=memory,
        seconds_of=seconds,
        model=options.model,
        default_model=DEFAULT_MODEL,
    )
