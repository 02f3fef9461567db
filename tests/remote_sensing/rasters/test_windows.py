# SPDX-License-Identifier: Apache-2.0
"""Parts of rasters."""

from pathlib import Path

import numpy as np
import pytest
from sample_rasters import TRANSFORM, write_raster

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.rasters.windows import window_of, window_of_bounds


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "x.tif", np.zeros((1, 30, 30), np.uint8))


def box(top: float, left: float, bottom: float, right: float) -> tuple[float, float, float, float]:
    """Left, bottom, right, top in the raster's coordinates of a part of its pixels."""
    (west, north), (east, south) = (TRANSFORM * corner for corner in ((left, top), (right, bottom)))
    return west, south, east, north


def test_bounds_become_whole_pixels(raster):
    window = window_of_bounds(raster, box(5, 10, 15, 20.5))
    assert (window.row_off, window.col_off, window.height, window.width) == (5, 10, 10, 11)


def test_the_part_is_the_window_or_that_of_the_bounds_or_all(raster):
    assert window_of([raster], None, None) is None
    assert window_of([raster, raster], (1, 2, 3, 4), None) == (1, 2, 3, 4)
    assert window_of([raster], None, box(5, 10, 15, 20)) == (5, 10, 10, 10)


def test_both_or_bounds_of_several_rasters_are_refused(raster):
    with pytest.raises(InputError, match="give one of them"):
        window_of([raster], (0, 0, 1, 1), box(0, 0, 1, 1))
    with pytest.raises(InputError, match="takes one input"):
        window_of([raster, raster], None, box(0, 0, 1, 1))
