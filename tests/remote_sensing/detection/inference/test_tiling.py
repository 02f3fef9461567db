# SPDX-License-Identifier: Apache-2.0
"""Tiles share out a scene, each pixel to one, whatever part is wanted."""

import numpy as np
import pytest

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.detection.inference.tiling import Tiling


@pytest.mark.parametrize(("rows", "columns"), [((0, 300), (0, 500)), ((70, 71), (130, 400))])
@pytest.mark.parametrize(("tile", "overlap"), [(96, 0), (128, 64), (256, 64)])
def test_every_pixel_belongs_to_the_middle_of_one_tile_and_lies_in_it(rows, columns, tile, overlap):
    tiling = Tiling(tile, overlap, rows, columns, (300, 500))
    owners = np.zeros((300, 500), int)
    tiles = [each for line in tiling.lines() for each in line]
    for each in tiles:
        owners[slice(*each.rows), slice(*each.columns)] += 1
        assert all(number % 32 == 0 for number in (*each.start, *each.shape))
        axes = zip(each.start, each.shape, (each.rows, each.columns), (300, 500), strict=True)
        for start, side, (first, last), length in axes:
            assert 0 <= start <= first < last <= start + side < length + 32
            assert start == 0 or start + overlap // 2 <= first
            assert start + side >= length or last <= start + side - overlap // 2
    wanted = np.zeros_like(owners)
    wanted[slice(*rows), slice(*columns)] = 1
    np.testing.assert_array_equal(owners, wanted)
    assert len(tiles) == len(tiling)


def test_a_part_has_tiles_of_the_whole():
    whole = {
        t.start for line in Tiling(128, 64, (0, 300), (0, 300), (300, 300)).lines() for t in line
    }
    part = {
        t.start for line in Tiling(128, 64, (100, 200), (90, 91), (300, 300)).lines() for t in line
    }
    assert part < whole


@pytest.mark.parametrize(("tile", "overlap"), [(100, 0), (128, 32), (128, 128), (128, -64)])
def test_sides_that_do_not_fit_the_strides_are_refused(tile, overlap):
    with pytest.raises(InputError, match="multiple of"):
        Tiling(tile, overlap, (0, 9), (0, 9), (9, 9))
