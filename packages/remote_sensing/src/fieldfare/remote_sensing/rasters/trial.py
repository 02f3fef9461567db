# SPDX-License-Identifier: Apache-2.0
"""A piece of a raster done on trial, which tells how long the whole will take."""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .opening import open_raster
from .windows import Box

FEW = 4
"""Times a piece: of rasters of fewer tiles only one tile is done on trial."""


def middle(path: Path, window: Box | None, side: float, scale: tuple[float, float] = (1, 1)) -> Box:
    """A square in the middle of what is wanted of a raster, in the raster's own pixels.

    Args:
        window: what is wanted: row, column, height, width; all when None.
        side: in pixels of the model.
        scale: pixels of the raster to one of the model, down and across.
    """
    with open_raster(path) as dataset:
        row, column, height, width = window or (0, 0, *dataset.shape)
    tall = min(height, max(1, round(side * scale[0])))
    wide = min(width, max(1, round(side * scale[1])))
    return row + (height - tall) // 2, column + (width - wide) // 2, tall, wide


def scale_of(path: Path, shape: tuple[int, int]) -> tuple[float, float]:
    """Pixels of a raster to one of the model, which sees it in another shape."""
    with open_raster(path) as dataset:
        return dataset.height / shape[0], dataset.width / shape[1]


@dataclass(eq=False)
class Trial:
    """Pieces of a raster, done for the time that they take.

    Attributes:
        run: works on a part of the raster, writes into a folder, which is thrown away, and gives
            the number of its tiles.
        box_of: the middle of the raster, that many tiles high and wide.
        tiles: of the whole raster, those without data left out.
        side: of a piece that tells what a tile takes on average, in tiles.
        whole: every tile holds data; else the middle may hold none and tell nothing.
    """

    run: Callable[[Box, Path], int]
    box_of: Callable[[float], Box]
    tiles: int
    side: float
    whole: bool

    @cached_property
    def first(self) -> float:
        """Seconds of one tile, and of loading what is loaded once; the whole finds that there."""
        return self._timed(1)

    def at_most(self) -> float:
        """Seconds of the whole as if all were loaded anew for each tile; inf where nobody knows."""
        return self.tiles * self.first if self.whole else math.inf

    def seconds(self) -> float:
        """Of the whole, from a piece once all is loaded.

        Where there are few tiles it is one tile, lest the trial be all of the work.
        """
        _ = self.first  # so that all is loaded
        return self.tiles * self._timed(self.side if self.tiles > FEW * self.side**2 else 1)

    def _timed(self, side: float) -> float:
        """Seconds of each tile of a piece."""
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            tiles = self.run(self.box_of(side), Path(folder))
            return (time.perf_counter() - began) / max(1, tiles)
