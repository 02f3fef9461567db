# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: memory as planned, time from a measured piece of a raster."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fieldfare.common.commands.budget import Needs
from fieldfare.common.commands.infer import seconds_of

from ...rasters.extent import held_by
from ...rasters.trial import Trial, middle
from ...rasters.windows import Box
from ..inference import run as inference
from ..inference.job import InferSettings, prepare
from ..inference.restore import BICUBIC, MARGIN, restore_bands

LATER = 96 * 2**20
"""Bytes of what is loaded only when rows are corrected and written."""

PIECE = 1.5
"""Side in tiles of the piece that is done on trial by the bicubic baseline."""

BESIDES = 1.15
"""Times that correcting and writing make of the network's seconds."""


def needs(settings: InferSettings) -> Needs[Path]:
    """Of a raster; one tile of the network is done on trial, and a piece by the baseline.

    Not a piece by the network: what the correction looks at around it would be tens of tiles.
    """
    restorers = settings.restorers()

    def memory(path: Path) -> int:
        with (job := prepare(path, settings, restorers[0])).scene:
            return job.memory + LATER

    def seconds(path: Path) -> float:
        job = prepare(path, settings, restorers[0])
        with job.scene as scene:
            held = held_by(scene, job.tiles, margin=MARGIN).tiles
            side, bands = settings.tile + 2 * MARGIN, len(scene.bands)
        if settings.model == BICUBIC:
            return Trial(
                lambda box, folder: _piece(path, box, folder, job.consistent),
                lambda side: middle(path, settings.window, side * settings.tile),
                held,
                PIECE,
                whole=held == len(job.tiles),
            ).seconds()
        tile, origin = np.zeros((1, bands, side, side), np.float32), np.zeros((1, 2), np.int64)
        return BESIDES * seconds_of(
            lambda: restore_bands(restorers[0], tile, origin),
            count=held * len(restorers),
            warm_up=False,
        )

    def _piece(path: Path, box: Box, folder: Path, consistent: bool) -> int:
        """Tiles of a part, corrected as the whole would be, whatever it looks like."""
        piece = replace(settings, window=box, consistent=consistent)
        return int(inference.infer(path, folder / "trial.tif", piece, restorers)["tiles"])

    return Needs(memory, seconds)
