# SPDX-License-Identifier: Apache-2.0
"""A hazy raster in, a clear raster of the same size and place out."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from sample_rasters import smooth, write_raster

from fieldfare.remote_sensing.dehazing.inference import run as inference
from fieldfare.remote_sensing.dehazing.inference.dehazers import DarkChannelDehazer
from fieldfare.remote_sensing.dehazing.inference.run import InferSettings, infer

PRIOR = InferSettings("dark-channel", tile=32, overlap=8)


class Kept:
    """Leaves every tile as it is."""

    margin, batch, least = 0, 2, 1

    def over(self, scene, values):
        return self

    def __call__(self, tiles):
        return tiles


def run(source, target, chosen=PRIOR, dehazer=None, **options):
    infer(source, target, chosen, dehazer or chosen.dehazer(), **options)
    with rasterio.open(target) as result:
        return result.read(), result.profile, result.tags()


@pytest.fixture
def tiny(tiny_dehazer):
    return InferSettings(str(tiny_dehazer), tile=32, overlap=8, device="cpu", precision="fp32")


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("uint16", 0), ("int16", -9), ("float32", np.nan)]
)
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_a_dehazer_that_changes_nothing_gives_the_raster_itself(tmp_path, dtype, nodata, bands):
    values = smooth(bands, 45, 70, 20, 230).astype(dtype)
    values[:, 10:14, 30:50] = nodata
    source = write_raster(tmp_path / "in.tif", values, nodata=nodata)
    result, profile, _ = run(source, tmp_path / "out.tif", dehazer=Kept())
    assert result.dtype == values.dtype
    assert np.array_equal(profile["nodata"], nodata, equal_nan=True)
    if dtype == "float32":
        assert np.allclose(result, values, atol=1e-3, equal_nan=True)
    else:
        assert np.array_equal(result, values)


def test_bounds_crs_colours_and_provenance(rgb, tmp_path):
    values, _, tags = run(rgb, tmp_path / "out.tif")
    with rasterio.open(rgb) as before, rasterio.open(tmp_path / "out.tif") as after:
        assert after.bounds == before.bounds
        assert after.crs == before.crs
        assert after.colorinterp == before.colorinterp
        assert after.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert values.shape == (3, 40, 52)
    provenance = json.loads(tags["FIELDFARE_PROVENANCE"])
    assert provenance["model"] == "dark-channel"
    assert provenance["source"] == "rgb.tif"


@pytest.mark.parametrize("model", ["prior", "tiny"])
def test_a_window_equals_that_part_of_the_whole(tmp_path, tiny, model):
    chosen = tiny if model == "tiny" else PRIOR
    source = write_raster(tmp_path / "in.tif", smooth(3, 90, 100, 20, 230).astype(np.uint8))
    whole, _, _ = run(source, tmp_path / "whole.tif", chosen)
    part, profile, _ = run(source, tmp_path / "part.tif", replace(chosen, window=(31, 20, 37, 53)))
    assert np.array_equal(part, whole[:, 31:68, 20:73])
    with rasterio.open(source) as dataset:
        assert profile["transform"] * (0, 0) == pytest.approx(dataset.transform * (20, 31))


def test_the_batch_does_not_change_the_result(tmp_path, tiny):
    source = write_raster(tmp_path / "in.tif", smooth(4, 70, 90, 20, 230).astype(np.uint8))
    alone, _, _ = run(source, tmp_path / "a.tif", replace(tiny, batch=1))
    together, _, _ = run(source, tmp_path / "b.tif", replace(tiny, batch=5))
    assert np.array_equal(alone, together)


def test_an_interrupted_run_is_resumed_to_the_same_bytes(tmp_path, tiny, monkeypatch):
    source = write_raster(tmp_path / "in.tif", smooth(3, 150, 40, 20, 230).astype(np.uint8))
    whole, _, _ = run(source, tmp_path / "whole.tif", tiny)
    target, add, calls = tmp_path / "out.tif", inference.RowStore.add, []

    def interrupted(self, rows, **arrays):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(rows)
        add(self, rows, **arrays)

    monkeypatch.setattr(inference.RowStore, "add", interrupted)
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        infer(source, target, tiny, tiny.dehazer())
    assert not target.exists()
    monkeypatch.setattr(inference.RowStore, "add", add)
    began = []
    result, _, _ = run(source, target, tiny, progress=lambda done, total: began.append(done))
    assert np.array_equal(result, whole)
    assert began[0] > 1


def test_bands_beyond_three_are_dehazed_one_by_one(tmp_path, tiny):
    values = smooth(4, 40, 40, 20, 230).astype(np.uint8)
    source = write_raster(tmp_path / "in.tif", values, photometric="MINISBLACK")
    alone = write_raster(tmp_path / "fourth.tif", values[3:])
    whole, _, _ = run(source, tmp_path / "out.tif", tiny)
    first, _, _ = run(source, tmp_path / "three.tif", replace(tiny, bands=(1, 2, 3)))
    fourth, _, _ = run(alone, tmp_path / "four.tif", tiny)
    assert np.array_equal(whole[:3], first)
    assert np.array_equal(whole[3:], fourth)


def test_alpha_is_carried(tmp_path, tiny):
    values = smooth(4, 40, 40, 10, 240).astype(np.uint8)
    values[3] = 255
    values[3, 4:8, 4:8] = 0
    source = write_raster(tmp_path / "in.tif", values, photometric="RGB", alpha="yes")
    result, _, _ = run(source, tmp_path / "out.tif", tiny)
    assert np.array_equal(result[3], values[3])


@pytest.mark.parametrize(
    ("dtype", "low", "high", "text", "expected"),
    [
        ("uint8", 3, 90, None, (0, 255)),
        ("float32", 0.1, 0.9, None, (0, 1)),
        ("float32", 0.1, 1.9, None, (0, 1.9)),
        ("uint16", 40, 900, None, (0, 900)),
        ("uint16", 40, 900, "40:10000", (40, 10000)),
        ("int16", -5, 90, "auto", (-5, 90)),
        ("uint16", 0, 0, "auto", (0, 1)),
    ],
)
def test_a_range_found_starts_at_no_light_at_all(tmp_path, dtype, low, high, text, expected):
    values = np.linspace(low, high, 64).reshape(1, 8, 8).astype(dtype)
    source = write_raster(tmp_path / "in.tif", values)
    job = inference.prepare(source, replace(PRIOR, value_range=text), DarkChannelDehazer())
    with job.scene:
        assert (job.values.low, job.values.high) == pytest.approx(expected)


def test_values_outside_the_range_are_carried_over(tmp_path):
    image = smooth(1, 40, 40, 2000, 3000)
    image[0, 10, 10] = 12_000
    source = write_raster(tmp_path / "in.tif", image.astype(np.uint16))
    chosen = replace(PRIOR, value_range="2100:2900")
    found, _, _ = run(source, tmp_path / "out.tif", chosen, dehazer=Kept())
    assert np.array_equal(found, image.astype(np.uint16))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_scene_of_only_nodata_gives_only_nodata(tmp_path, tiny, dtype):
    nodata = 0 if dtype == "uint8" else np.nan
    source = write_raster(tmp_path / "in.tif", np.full((2, 9, 7), nodata, dtype), nodata=nodata)
    for chosen in (PRIOR, tiny):
        result, _, _ = run(source, tmp_path / "out.tif", chosen)
        assert np.array_equal(result, np.full_like(result, nodata), equal_nan=True)


def test_the_prior_takes_even_haze_off(tmp_path):
    rng = np.random.default_rng(0)
    clear = rng.uniform(40, 200, (3, 200, 200))
    clear[:, ::5, ::5] = 0
    clear[:, 20:50, 20:50] = 240  # as bright as the haze
    seen = 0.5 * clear + 0.5 * 240
    source = write_raster(tmp_path / "in.tif", seen.round().astype(np.uint8))
    result, _, _ = run(source, tmp_path / "out.tif", replace(PRIOR, tile=64))
    away = np.ones(seen.shape, bool)
    away[:, 10:60, 10:60] = False
    before, after = (np.abs(image - clear)[away].mean() for image in (seen, result))
    assert after < 0.3 * before
