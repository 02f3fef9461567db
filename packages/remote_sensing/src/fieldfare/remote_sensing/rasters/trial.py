# SPDX-License-Identifier: Apache-2.0
"""A piece of a raster done on trial, which tells how long the whole will take."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .opening import open_raster
from .windows import Box


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


def seconds_a_tile(run: Callable[[Path], int]) -> float:
    """What a tile takes of a whole run.

    Args:
        run: writes into a folder, which is thrown away, and gives the number of its tiles.
    """
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tiles = run(Path(folder))
        return (time.perf_counter() - began) / max(1, tiles)
