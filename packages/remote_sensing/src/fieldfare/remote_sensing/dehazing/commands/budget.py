# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: memory as planned, time from a measured piece of a raster."""

from dataclasses import replace
from pathlib import Path

from fieldfare.common.commands.budget import Needs

from ...rasters.extent import held_by
from ...rasters.trial import middle, seconds_a_tile
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

    def seconds(path: Path) -> float:
        job = prepare(path, settings, dehazer)
        with job.scene as scene:
            held = held_by(scene, job.tiles, margin=job.dehazer.margin).tiles
        piece = replace(settings, window=middle(path, settings.window, PIECE * settings.tile))

        def run(folder: Path) -> int:
            return int(inference.infer(path, folder / "trial.tif", piece, dehazer)["tiles"])

        return held * seconds_a_tile(run)

    return Needs(memory, seconds)
