# SPDX-License-Identifier: Apache-2.0
"""Folders of tiles: their order, and what is refused."""

import numpy as np
import pytest
import rasterio

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.rasters.tiles import read_tiles


def write_tile(path, bands=3, dtype="uint8"):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=8,
        height=4,
        count=bands,
        dtype=dtype,
        crs="EPSG:32610",
        transform=rasterio.Affine.scale(2),
    ) as target:
        for band in range(1, bands + 1):
            target.write(np.full((4, 8), band, dtype), band)


def test_tiles_come_in_order_of_name_and_without_further_bands(tmp_path):
    write_tile(tmp_path / "b.tif", bands=4)
    write_tile(tmp_path / "a.TIFF")
    (tmp_path / "notes.txt").write_text("no tile")
    tiles = read_tiles(tmp_path, 3)
    assert [tile.shape for tile in tiles] == [(4, 8, 3)] * 2
    assert tiles[1][0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("bands", "dtype"), [(2, "uint8"), (3, "uint16")])
def test_unfit_tiles_are_refused(tmp_path, bands, dtype):
    write_tile(tmp_path / "a.tif", bands, dtype)
    with pytest.raises(InputError, match=f"this has {bands} of {dtype}"):
        read_tiles(tmp_path, 3)


def test_a_folder_without_tiles_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no \.tif"):
        read_tiles(tmp_path, 3)
