# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: memory as planned, time from a measured piece of a scene."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np

from fieldfare.common.commands.budget import Needs
from fieldfare.common.commands.infer import seconds_of

from ...rasters.extent import held_by
from ...rasters.trial import Trial, middle, scale_of
from ...rasters.windows import Box
from ..inference import run as inference
from ..inference.predict import Predictor, load_predictor

LATER = 320 * 2**20
"""Bytes that are loaded only when outlines are drawn and written: 120 to 250 MB were measured."""

PIECE = 2
"""Side of the measured piece, in tiles less what they share."""


def needs(settings: inference.InferSettings, *, guard: bool = False) -> Needs[Path]:
    """Of a scene, outlines included.

    Outlining a dense settlement takes longer than predicting it, and an empty field nearly nothing;
    so the middle of the scene is done on trial, a tile alone would not tell.
    """
    predictor_of = functools.cache(settings.predictor)

    def memory(path: Path) -> int:
        loaded = predictor_of.cache_info().currsize
        predictor = predictor_of() if loaded else _any_of(settings.model)
        job = inference.prepare(path, settings, predictor)
        with job.scene:
            return job.memory + LATER

    @functools.cache
    def trial(path: Path) -> Trial:
        predictor = predictor_of()
        job = inference.prepare(path, settings, predictor)
        with job.scene as scene:
            held = held_by(scene, job.tiles, shift=settings.shift).tiles
            scale = scale_of(path, scene.dataset.shape)

        def box_of(side: float) -> Box:
            return middle(path, settings.window, side * (settings.tile - settings.overlap), scale)

        def run(box: Box, folder: Path) -> int:
            piece, targets = replace(settings, window=box), inference.Targets(folder / "trial.gpkg")
            return int(inference.infer(path, targets, piece, predictor, guard=guard)["tiles"])

        return Trial(run, box_of, held, PIECE, whole=held == len(job.tiles))

    def seconds(path: Path) -> float:
        found = trial(path)
        least = 0.0 if found.whole else found.tiles * _alone(settings, predictor_of())
        return max(found.seconds(), least)

    return Needs(memory, seconds, lambda path: trial(path).at_most())


@functools.lru_cache(maxsize=1)
def _any_of(model: str) -> Predictor:
    """At whatever depth and precision: memory is counted alike for all."""
    return load_predictor(model)


def _alone(settings: inference.InferSettings, predictor: Predictor) -> float:
    """Seconds of a tile in the network."""
    count, side = settings.batch or predictor.batch, settings.tile
    tiles = np.zeros((count, predictor.config.in_channels, side, side), np.float32)
    return seconds_of(lambda: predictor(tiles, np.zeros((count, 2), np.int64))) / count
