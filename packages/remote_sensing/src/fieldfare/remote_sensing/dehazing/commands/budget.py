# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: memory as planned, time from a measured piece of a raster."""

import functools
from dataclasses import replace
from pathlib import Path

from fieldfare.common.commands.budget import Needs

from ...rasters.extent import held_by
from ...rasters.trial import Trial, middle
from ...rasters.windows import Box
from ..inference import run as inference
from ..inference.run import InferSettings, prepare

LATER = 96 * 2**20
"""Bytes of what is loaded only when rows are written."""

PIECE = 1.75
"""Side of the measured piece, in tiles: about four tiles."""


def needs(settings: InferSettings) -> Needs[Path]:
    """Of a raster; the middle of it is done on trial."""
    dehazer = settings.dehazer()

    def memory(path: Path) -> int:
        with (job := prepare(path, settings, dehazer)).scene:
            return job.memory + LATER

    @functools.cache
    def trial(path: Path) -> Trial:
        job = prepare(path, settings, dehazer)
        with job.scene as scene:
            held = held_by(scene, job.tiles, margin=job.dehazer.margin).tiles

        def box_of(side: float) -> Box:
            return middle(path, settings.window, side * settings.tile)

        def run(box: Box, folder: Path) -> int:
            piece = replace(settings, window=box)
            return int(inference.infer(path, folder / "trial.tif", piece, dehazer)["tiles"])

        return Trial(run, box_of, held, PIECE, whole=held == len(job.tiles))

    return Needs(memory, lambda path: trial(path).seconds(), lambda path: trial(path).at_most())
