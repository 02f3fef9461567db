# SPDX-License-Identifier: Apache-2.0
import math
from pathlib import Path

import pytest
from rasterio.env import get_gdal_config

from fieldfare.remote_sensing.rasters import trial
from fieldfare.remote_sensing.rasters.opening import environment
from fieldfare.remote_sensing.rasters.windows import Box


@pytest.mark.parametrize(("tiles", "side"), [(1, 1), (16, 1), (17, 2), (1000, 2)])
def test_a_tile_is_timed_once_all_is_loaded(
    tiles: int, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, seen = [0.0], []
    monkeypatch.setattr(trial.time, "perf_counter", lambda: now[0])

    def run(box: Box, folder: Path) -> int:
        assert folder.is_dir()
        seen.append(box[2])
        now[0] += 7 * (len(seen) == 1) + 3 * box[2] ** 2  # what is loaded once takes 7
        return int(box[2] ** 2)

    found = trial.Trial(run, lambda side: (0, 0, *[round(side)] * 2), tiles, 2, whole=True)
    assert found.at_most() == found.at_most() == 10 * tiles
    assert seen == [1]
    assert found.seconds() == 3 * tiles
    assert seen == [1, side]  # of little work but one tile
    assert trial.Trial(run, found.box_of, tiles, 2, whole=False).at_most() == math.inf


def test_gdal_keeps_megabytes_of_a_raster() -> None:
    with environment():
        assert get_gdal_config("GDAL_CACHEMAX") == 128 * 2**20
