# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: memory as counted, time from a measured piece of a scene."""

from dataclasses import replace
from pathlib import Path

from fieldfare.common.commands.budget import Needs

from ...rasters.opening import GDAL_CACHE_MB
from ...rasters.trial import middle, scale_of, seconds_a_tile
from ..inference import run as inference

LATER = 200 * 2**20
"""Bytes of what is loaded only when detections are written, and of the detections themselves."""

PIECE = 2
"""Side of the measured piece, in tiles less what they share."""


def needs(settings: inference.InferSettings) -> Needs[Path]:
    """Of a scene; the middle of it is done on trial."""
    predictor = settings.predictor()

    def memory(path: Path) -> int:
        return GDAL_CACHE_MB * 2**20 + LATER

    def seconds(path: Path) -> float:
        job = inference.prepare(path, settings, predictor)
        with job.scene as scene:
            count, scale = len(job.tiles), scale_of(path, scene.dataset.shape)
        box = middle(path, settings.window, PIECE * (settings.tile - settings.overlap), scale)
        piece = replace(settings, window=box)

        def run(folder: Path) -> int:
            targets = inference.Targets(folder / "trial.gpkg")
            return int(inference.infer(path, targets, piece, predictor)["tiles"])

        return count * seconds_a_tile(run)

    return Needs(memory, seconds)
