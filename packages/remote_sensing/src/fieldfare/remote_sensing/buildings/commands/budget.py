# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: memory as planned, time from a measured piece of a scene."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fieldfare.common.commands.budget import Needs
from fieldfare.common.commands.infer import seconds_of

from ...rasters.extent import held_by
from ...rasters.trial import middle, scale_of, seconds_a_tile
from ..inference import run as inference

LATER = 320 * 2**20
"""Bytes that are loaded only when outlines are drawn and written: 120 to 250 MB were measured."""

PIECE = 2
"""Side of the measured piece, in tiles less what they share."""


def needs(settings: inference.InferSettings, *, guard: bool = False) -> Needs[Path]:
    """Of a scene, outlines included.

    Outlining a dense settlement takes longer than predicting it, and an empty field nearly nothing;
    so the middle of the scene is done on trial, a tile alone would not tell.
    """
    predictor = settings.predictor()

    def memory(path: Path) -> int:
        job = inference.prepare(path, settings, predictor)
        with job.scene:
            return job.memory + LATER

    def seconds(path: Path) -> float:
        count, side = settings.batch or predictor.batch, settings.tile
        tiles = np.zeros((count, predictor.config.in_channels, side, side), np.float32)
        alone = seconds_of(lambda: predictor(tiles, np.zeros((count, 2), np.int64))) / count
        job = inference.prepare(path, settings, predictor)
        with job.scene as scene:
            held = held_by(scene, job.tiles, shift=settings.shift).tiles
            scale = scale_of(path, scene.dataset.shape)
        box = middle(path, settings.window, PIECE * (settings.tile - settings.overlap), scale)
        piece = replace(settings, window=box)

        def run(folder: Path) -> int:
            targets = inference.Targets(folder / "trial.gpkg")
            return int(inference.infer(path, targets, piece, predictor, guard=guard)["tiles"])

        return held * max(alone, seconds_a_tile(run))

    return Needs(memory, seconds)
