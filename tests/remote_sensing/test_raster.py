# SPDX-License-Identifier: Apache-2.0
"""Opening, validity, georeference and sample types."""

import math

import numpy as np
import pytest
import rasterio
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.windows import Window
from sample_rasters import TRANSFORM, smooth, write_raster

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.raster import (
    Scene,
    ValueRange,
    georeference,
    to_sample_type,
    window_of_bounds,
)


@pytest.mark.parametrize("text", ["1", "5:5", "9:1", "a:b", "0:nan", "0:inf", "1:2:3", ""])
def test_a_senseless_range_is_refused(text):
    with pytest.raises(InputError, match="LOW:HIGH"):
        ValueRange.parse(text)


def test_a_range_is_read():
    assert ValueRange.parse("-1.5:2e4") == ValueRange(-1.5, 20000)
    assert str(ValueRange.parse("0:10000")) == "0:10000"


@given(
    value=st.floats(-70000, 70000),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    nodata=st.sampled_from([None, 0, 255, -9999, math.nan]),
)
def test_valid_samples_never_become_nodata(value, dtype, nodata):
    kind = np.dtype(dtype)
    if nodata is not None and kind.kind != "f":
        assume(np.iinfo(kind).min <= nodata <= np.iinfo(kind).max)
    limits = np.iinfo(kind) if kind.kind != "f" else np.finfo(kind)
    values = np.array([[[value, value, float(nodata or 0)]]])
    valid = np.array([[[True, False, True]]])
    out = to_sample_type(values, kind, nodata, valid)[0, 0]
    missing = np.asarray(nodata or 0, kind)
    assert out[1] == missing or (math.isnan(float(missing)) and np.isnan(out[1]))
    if nodata is not None and not math.isnan(nodata):
        assert out[0] != missing
        assert out[2] != missing
    if nodata is None and kind.kind != "f":
        assert abs(out[0] - np.clip(value, limits.min, limits.max)) <= 0.5


def test_rounding_is_to_the_nearest():
    values = np.array([[[0.4, 0.6, 254.6, 300, -3]]])
    out = to_sample_type(values, np.dtype("uint8"), None, np.ones_like(values, bool))
    assert out.tolist() == [[[0, 1, 255, 255, 0]]]


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
        assert scene.extremes() == ValueRange(3, 5)


def test_transform_is_scaled_and_rotation_kept(tmp_path):
    turned = TRANSFORM * rasterio.Affine.rotation(30)
    path = write_raster(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint8), transform=turned)
    with Scene(path, window=Window(2, 3, 4, 4)) as scene:
        here = georeference(scene, 4)
    assert here["transform"] * (0, 0) == pytest.approx(turned * (2, 3))
    assert here["transform"] * (16, 16) == pytest.approx(turned * (6, 7))
    assert here["crs"].to_epsg() == 32611


def test_ground_control_points_move_with_the_pixels(tmp_path):
    points = [
        rasterio.control.GroundControlPoint(row=r, col=c, x=10.0 + c, y=50.0 - r)
        for r, c in ((0, 0), (0, 8), (8, 0), (8, 8))
    ]
    path = tmp_path / "gcp.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=8,
        width=8,
        dtype="uint8",
        gcps=points,
        crs="EPSG:4326",
    ) as sink:
        sink.write(np.ones((1, 8, 8), np.uint8))
    with Scene(path, window=Window(4, 0, 4, 8)) as scene:
        here = georeference(scene, 4)
    assert [(p.row, p.col, p.x) for p in here["gcps"]][1] == (0, 16, 18.0)
    assert "transform" not in here


def test_rational_polynomials_keep_the_ground_under_each_pixel(tmp_path):
    coefficients = [1.0] + [0.0] * 19
    rpcs = rasterio.rpc.RPC(
        err_bias=0.0,
        err_rand=0.0,
        height_off=0.0,
        height_scale=100.0,
        lat_off=40.0,
        lat_scale=1.0,
        line_den_coeff=coefficients,
        line_num_coeff=[0.0, 1.0] + [0.0] * 18,
        line_off=3.5,
        line_scale=4.0,
        long_off=10.0,
        long_scale=1.0,
        samp_den_coeff=coefficients,
        samp_num_coeff=[0.0, 0.0, 1.0] + [0.0] * 17,
        samp_off=3.5,
        samp_scale=4.0,
    )
    path = tmp_path / "rpc.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=8, width=8, dtype="uint8", rpcs=rpcs
    ) as sink:
        sink.write(np.ones((1, 8, 8), np.uint8))
    with Scene(path) as scene:
        enlarged = georeference(scene, 4)["rpcs"]
    # The corner of the first pixel is at line -0.5 in both; the far edge at 7.5 and 31.5.
    for line, wide in ((-0.5, -0.5), (7.5, 31.5), (3.5, 15.5)):
        before = (line - rpcs.line_off) / rpcs.line_scale
        assert (wide - enlarged.line_off) / enlarged.line_scale == pytest.approx(before)


def test_bounds_become_whole_pixels(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((1, 50, 50), np.uint8))
    left, top = TRANSFORM * (10, 5)
    right, bottom = TRANSFORM * (20.5, 15)
    window = window_of_bounds(path, (left, bottom, right, top))
    assert (window.row_off, window.col_off, window.height, window.width) == (5, 10, 10, 11)
