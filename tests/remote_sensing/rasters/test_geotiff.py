# SPDX-License-Identifier: Apache-2.0
"""Georeference and sample types of the output."""

import math

import numpy as np
import pytest
import rasterio
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.windows import Window
from sample_rasters import TRANSFORM, write_raster

from fieldfare.remote_sensing.rasters.geotiff import georeference, to_sample_type
from fieldfare.remote_sensing.rasters.reading import Scene


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
