# SPDX-License-Identifier: Apache-2.0
"""Opening, ranges and validity."""

import numpy as np
import pytest
from sample_rasters import smooth, write_raster

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.rasters.ranges import spread_of
from fieldfare.remote_sensing.rasters.reading import Scene, ValueRange


@pytest.mark.parametrize("text", ["1", "5:5", "9:1", "a:b", "0:nan", "0:inf", "1:2:3", ""])
def test_a_senseless_range_is_refused(text):
    with pytest.raises(InputError, match="LOW:HIGH"):
        ValueRange.parse(text)


def test_a_range_is_read():
    assert ValueRange.parse("-1.5:2e4") == ValueRange(-1.5, 20000)
    assert str(ValueRange.parse("0:10000")) == "0:10000"


def test_each_band_has_its_own_missing_samples(tmp_path):
    values = np.full((2, 4, 4), 7, np.uint16)
    values[0, 1, 1] = 0
    path = write_raster(tmp_path / "a.tif", values, nodata=0)
    with Scene(path) as scene:
        got = scene.read((0, 4), (0, 4))
        valid = scene.valid(got, (0, 4), (0, 4))
    assert (~valid).sum() == 1
    assert not valid[0, 1, 1]


def test_mask_band_and_alpha_make_samples_missing(tmp_path):
    values = smooth(3, 6, 6, 1, 200).astype(np.uint8)
    mask = np.full((6, 6), 255, np.uint8)
    mask[2] = 0
    masked = write_raster(tmp_path / "mask.tif", values, mask=mask)
    alpha = write_raster(
        tmp_path / "alpha.tif", np.concatenate([values, mask[None]]), photometric="RGB", alpha="yes"
    )
    for path in (masked, alpha):
        with Scene(path) as scene:
            assert scene.bands == (1, 2, 3)
            valid = scene.valid(scene.read((0, 6), (0, 6)), (0, 6), (0, 6))
            assert not valid[:, 2].any()
            assert valid.sum() == 3 * 30


def test_extremes_ignore_missing_samples(tmp_path):
    values = np.array([[[np.nan, 3, 5], [-9999, 4, 4]]], np.float32)
    with Scene(write_raster(tmp_path / "a.tif", values, nodata=-9999)) as scene:
        assert spread_of(scene).extremes == ValueRange(3, 5)
