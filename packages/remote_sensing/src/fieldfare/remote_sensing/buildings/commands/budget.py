# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: memory as planned, time from a measured piece of a scene."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fieldfare.common.commands import budget
from fieldfare.common.commands.infer import seconds_of

from ...rasters.extent import held_by
from ...rasters.opening import open_raster
from ..inference import run as inference
from ..inference.predict import Predictor
from ..networks.models import TASK
from ..options import DEFAULT_MODEL, InferOptions

LATER = 320 * 2**20
"""Bytes that are loaded only when outlines are drawn and written: 120 to 250 MB were measured."""

PIECE = 2
"""Side of the measured piece, in tiles less what they share."""


def within(
    inputs: Sequence[Path],
    options: InferOptions,
    settings_of: Callable[[InferOptions], inference.InferSettings],
) -> tuple[InferOptions, budget.Plan]:
    """The options of the best variant that fits, for all scenes together."""
    abreast = min(options.workers, len(inputs))

    def memory(chosen: InferOptions) -> int:
        settings = settings_of(chosen)
        predictor = settings.predictor()
        most = 0
        for path in inputs:
            job = inference.prepare(path, settings, predictor)
            with job.scene:
                most = max(most, job.memory)
        return (most + LATER) * abreast

    def seconds(chosen: InferOptions) -> float:
        settings = settings_of(chosen)
        predictor = settings.predictor()
        each = [scene_seconds(path, settings, predictor, guard=chosen.guard) for path in inputs]
        return sum(each) / abreast

    return budget.plan(
        TASK,
        options,
        memory_of=memory,
        seconds_of=seconds,
        model=options.model,
        default_model=DEFAULT_MODEL,
    )


def scene_seconds(
    path: Path, settings: inference.InferSettings, predictor: Predictor, *, guard: bool = False
) -> float:
    """What a scene will take, outlines included, from its middle done as a trial.

    Outlining a dense settlement takes longer than predicting it, and an empty field nearly nothing;
    so a tile alone would not tell.
    """
    count, side = settings.batch or predictor.batch, settings.tile
    tiles = np.zeros((count, predictor.config.in_channels, side, side), np.float32)
    alone = seconds_of(lambda: predictor(tiles, np.zeros((count, 2), np.int64))) / count
    job = inference.prepare(path, settings, predictor)
    with job.scene as scene:
        held = held_by(scene, job.tiles, shift=settings.shift).tiles
        middle = _middle(path, scene.dataset.shape, settings)
    with tempfile.TemporaryDirectory() as folder:
        targets = inference.Targets(Path(folder) / "trial.gpkg")
        began = time.perf_counter()
        trial = inference.infer(
            path, targets, replace(settings, window=middle), predictor, guard=guard
        )
        measured = (time.perf_counter() - began) / int(trial["tiles"])
    return held * max(alone, measured)


def _middle(
    path: Path, shape: tuple[int, int], settings: inference.InferSettings
) -> tuple[int, int, int, int]:
    """A square in the middle of what is wanted of a scene, in the scene's own pixels.

    Args:
        shape: of the scene at the model's pixel size.
    """
    with open_raster(path) as dataset:
        own = dataset.shape
    row, column, height, width = settings.window or (0, 0, *own)
    side = PIECE * (settings.tile - settings.overlap)
    tall = min(height, max(1, round(side * own[0] / shape[0])))
    wide = min(width, max(1, round(side * own[1] / shape[1])))
    return row + (height - tall) // 2, column + (width - wide) // 2, tall, wide
