# SPDX-License-Identifier: Apache-2.0
"""Parts of rasters, by pixels or by coordinates."""

import math
from collections.abc import Sequence
from pathlib import Path

from rasterio.windows import Window, from_bounds

from fieldfare.common.errors import InputError

from .georeference import georeference_of
from .opening import open_raster

Box = tuple[int, int, int, int]
"""Row, column, height, width."""


def window_of(
    inputs: Sequence[Path], window: Box | None, bbox: tuple[float, float, float, float] | None
) -> Box | None:
    """The part that `--window` or `--bbox` asks for; None is everything.

    Raises:
        InputError: both are given, or a bbox with several inputs.
    """
    if not bbox:
        return window
    if window:
        raise InputError("--bbox and --window: give one of them")
    if len(inputs) > 1:
        raise InputError("--bbox: takes one input")
    box = window_of_bounds(inputs[0], bbox)
    return int(box.row_off), int(box.col_off), int(box.height), int(box.width)


def window_of_bounds(path: Path, bounds: tuple[float, float, float, float]) -> Window:
    """Whole-pixel window covering (left, bottom, right, top) in the raster's own coordinates."""
    with open_raster(path) as dataset:
        transform = georeference_of(dataset).transform
        if transform.is_rectilinear:
            window = from_bounds(*bounds, transform=transform)
        else:
            left, bottom, right, top = bounds
            corners = [~transform * (x, y) for x in (left, right) for y in (bottom, top)]
            columns, rows = zip(*corners, strict=True)
            window = Window.from_slices(
                (min(rows), max(rows)), (min(columns), max(columns)), boundless=True
            )
    left, top = math.floor(window.col_off + 1e-6), math.floor(window.row_off + 1e-6)
    right = math.ceil(window.col_off + window.width - 1e-6)
    bottom = math.ceil(window.row_off + window.height - 1e-6)
    return Window(left, top, right - left, bottom - top)
