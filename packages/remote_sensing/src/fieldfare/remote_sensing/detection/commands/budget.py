# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: memory as counted, time from a measured piece of a scene."""

import functools
from dataclasses import replace
from pathlib import Path

from fieldfare.common.commands.budget import Needs

from ...rasters.opening import GDAL_CACHE_MB
from ...rasters.trial import Trial, middle, scale_of
from ...rasters.windows import Box
from ..inference import run as inference

LATER = 200 * 2**20
"""Bytes of what is loaded only when detections are written, and of the detections themselves."""

PIECE = 2
"""Side of the measured piece, in tiles less what they share."""


def needs(settings: inference.InferSettings) -> Needs[Path]:
    """Of a scene; the middle of it is done on trial."""

    def memory(path: Path) -> int:
        return GDAL_CACHE_MB * 2**20 + LATER

    @functools.cache
    def trial(path: Path) -> Trial:
        predictor = settings.predictor()
        job = inference.prepare(path, settings, predictor)
        with job.scene as scene:
            count, scale = len(job.tiles), scale_of(path, scene.dataset.shape)
            whole = scene.dense

        def box_of(side: float) -> Box:
            return middle(path, settings.window, side * (settings.tile - settings.overlap), scale)

        def run(box: Box, folder: Path) -> int:
            piece, targets = replace(settings, window=box), inference.Targets(folder / "trial.gpkg")
            return int(inference.infer(path, targets, piece, predictor)["tiles"])

        return Trial(run, box_of, count, PIECE, whole=whole)

    return Needs(memory, lambda path: trial(path).seconds(), lambda path: trial(path).at_most())
