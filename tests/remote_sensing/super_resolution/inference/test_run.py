# SPDX-License-Identifier: Apache-2.0
"""A raster in, an enlarged raster in the right place out."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_rasters import smooth, write_raster

from fieldfare.remote_sensing.super_resolution.inference import run as inference
from fieldfare.remote_sensing.super_resolution.inference.restore import BicubicRestorer
from fieldfare.remote_sensing.super_resolution.inference.run import InferSettings, infer

BICUBIC = InferSettings("bicubic", tile=16, overlap=4)


def run(source, target, chosen=BICUBIC, **options):
    infer(source, target, chosen, chosen.restorers(), **options)
    with rasterio.open(target) as result:
        return result.read(), result.profile, result.tags()


def test_bounds_crs_colours_and_provenance(rgb, tmp_path):
    values, _, tags = run(rgb, tmp_path / "out.tif")
    with rasterio.open(rgb) as before, rasterio.open(tmp_path / "out.tif") as after:
        assert after.bounds == before.bounds
        assert after.crs == before.crs
        assert after.colorinterp == before.colorinterp
        assert after.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert values.shape == (3, 160, 208)
    assert values.dtype == np.uint8
    provenance = json.loads(tags["FIELDFARE_PROVENANCE"])
    assert provenance["model"] == "bicubic"
    assert provenance["source"] == "rgb.tif"


def test_the_hidden_folder_of_rows_is_gone_afterwards(rgb, tmp_path):
    run(rgb, tmp_path / "out.tif")
    assert {path.name for path in tmp_path.iterdir()} == {"rgb.tif", "out.tif"}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    bands=st.integers(1, 5),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    nodata=st.sampled_from([None, 0]),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 99),
)
def test_any_size_type_and_nodata_pattern(
    tmp_path, height, width, bands, dtype, nodata, share, seed
):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 200, (bands, height, width)).astype(dtype)
    missing = rng.random((height, width)) < share
    missing.flat[0] = False
    if nodata is not None:
        values[:, missing] = nodata
    source = write_raster(tmp_path / "in.tif", values, nodata=nodata)
    result, profile, _ = run(source, tmp_path / "out.tif")
    assert result.shape == (bands, 4 * height, 4 * width)
    assert result.dtype == np.dtype(dtype)
    if nodata is not None:
        assert profile["nodata"] == nodata
        enlarged = missing.repeat(4, 0).repeat(4, 1)
        assert np.array_equal(result == nodata, np.broadcast_to(enlarged, result.shape))
    # Clipped bicubic interpolation stays within the values that went in.
    inside = result[result != 0] if nodata is not None else result
    low, high = (0, 255) if dtype == "uint8" else (values[values != 0].min(), values.max())
    assert inside.min() >= low - 1e-3
    assert inside.max() <= high + 1e-3


def test_a_window_equals_that_part_of_the_whole(rgb, tmp_path, tiny_model):
    chosen = InferSettings(str(tiny_model), tile=16, overlap=4, device="cpu", precision="fp32")
    whole, _, _ = run(rgb, tmp_path / "whole.tif", chosen)
    part, profile, _ = run(rgb, tmp_path / "part.tif", replace(chosen, window=(11, 20, 17, 23)))
    assert np.array_equal(part, whole[:, 44:112, 80:172])
    with rasterio.open(rgb) as source:
        assert profile["transform"] * (0, 0) == pytest.approx(source.transform * (20, 11))


def test_the_batch_does_not_change_the_result(rgb, tmp_path, tiny_model):
    chosen = InferSettings(str(tiny_model), tile=16, overlap=4, device="cpu", precision="fp32")
    alone, _, _ = run(rgb, tmp_path / "a.tif", replace(chosen, batch=1))
    together, _, _ = run(rgb, tmp_path / "b.tif", replace(chosen, batch=5))
    assert np.array_equal(alone, together)


def test_the_seed_changes_the_result_and_the_same_seed_repeats_it(rgb, tmp_path, tiny_model):
    chosen = InferSettings(str(tiny_model), tile=16, overlap=4, device="cpu", precision="fp32")
    first, _, _ = run(rgb, tmp_path / "a.tif", chosen)
    again, _, _ = run(rgb, tmp_path / "b.tif", chosen)
    other, _, _ = run(rgb, tmp_path / "c.tif", replace(chosen, seed=1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_uncertainty_is_the_deviation_over_runs_with_those_seeds(tmp_path, tiny_model):
    values = smooth(3, 20, 24, 0, 1).astype(np.float32)
    source = write_raster(tmp_path / "in.tif", values)
    chosen = InferSettings(
        str(tiny_model), tile=16, overlap=4, seed=5, device="cpu", precision="fp32"
    )
    runs = [run(source, tmp_path / f"{k}.tif", replace(chosen, seed=5 + k))[0] for k in range(3)]
    both = replace(chosen, uncertainty=3)
    result, _, _ = run(source, tmp_path / "out.tif", both, deviation=tmp_path / "std.tif")
    with rasterio.open(tmp_path / "std.tif") as spread:
        assert np.allclose(spread.read(), np.std(runs, axis=0, ddof=1), atol=1e-6)
        assert spread.bounds == rasterio.open(source).bounds
    assert np.array_equal(result, runs[0])


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_run_is_resumed_to_the_same_bytes(
    tmp_path, tiny_model, monkeypatch, stop_after, consistent
):
    rgb = write_raster(tmp_path / "rgb.tif", smooth(3, 100, 20, 20, 230).astype(np.uint8))
    chosen = InferSettings(
        str(tiny_model), tile=16, overlap=4, device="cpu", precision="fp32", consistent=consistent
    )
    whole, _, _ = run(rgb, tmp_path / "whole.tif", chosen)
    target, add, calls = tmp_path / "out.tif", inference.RowStore.add, []

    def interrupted(self, rows, **arrays):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(rows)
        add(self, rows, **arrays)

    monkeypatch.setattr(inference.RowStore, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        infer(rgb, target, chosen, chosen.restorers())
    assert not target.exists()
    monkeypatch.setattr(inference.RowStore, "add", add)
    tiles, calls = [], []
    result, _, _ = run(rgb, target, chosen, progress=lambda done, total: tiles.append(done))
    assert np.array_equal(result, whole)
    assert (
        len(tiles) < len(inference.prepare(rgb, chosen, chosen.restorers()[0]).tiles)
        or stop_after == 1
    )


def test_alpha_is_carried_and_masks_the_rest(tmp_path):
    values = smooth(4, 12, 12, 10, 240).astype(np.uint8)
    values[3] = 255
    values[3, 4:8, 4:8] = 0
    source = write_raster(tmp_path / "in.tif", values, photometric="RGB", alpha="yes")
    result, _, _ = run(source, tmp_path / "out.tif")
    assert result.shape == (4, 48, 48)
    assert np.array_equal(result[3], values[3].repeat(4, 0).repeat(4, 1))
    with rasterio.open(tmp_path / "out.tif") as after:
        assert after.colorinterp[3] == rasterio.enums.ColorInterp.alpha


def test_near_infrared_marked_as_alpha_is_data_when_named(tmp_path):
    values = smooth(4, 12, 12, 10, 240).astype(np.uint8)
    values[3, 4:8, 4:8] = 0
    source = write_raster(tmp_path / "in.tif", values, photometric="RGB", alpha="yes")
    named = replace(BICUBIC, bands=(1, 2, 3, 4))
    result, _, _ = run(source, tmp_path / "out.tif", named)
    assert result.shape == (4, 48, 48)
    assert (result[:3] != 0).all()
    assert len(np.unique(result[3, 10:30, 10:30])) > 16


def test_a_mask_band_is_carried(tmp_path):
    mask = np.full((12, 12), 255, np.uint8)
    mask[:3] = 0
    values = smooth(3, 12, 12, 10, 240).astype(np.uint8)
    source = write_raster(tmp_path / "in.tif", values, mask=mask)
    run(source, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as after:
        assert np.array_equal(after.read_masks(1), mask.repeat(4, 0).repeat(4, 1))


def test_reflectance_keeps_type_and_unit(tmp_path, tiny_model):
    values = smooth(4, 18, 18, 300, 6000).astype(np.uint16)
    source = write_raster(tmp_path / "in.tif", values, nodata=0, tags={"SENSOR": "S2"})
    chosen = InferSettings(str(tiny_model), tile=16, overlap=4, value_range="0:10000")
    result, profile, tags = run(source, tmp_path / "out.tif", chosen)
    assert profile["dtype"] == "uint16"
    assert tags["SENSOR"] == "S2"
    mean = values.mean(axis=(1, 2))
    assert np.allclose(result.mean(axis=(1, 2)), mean, rtol=0.35)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "text", "expected"),
    [
        ("uint8", 3, 90, None, (0, 255)),
        ("float32", 0.1, 0.9, None, (0, 1)),
        ("uint16", 40, 900, None, (40, 900)),
        ("uint16", 40, 900, "0:10000", (0, 10000)),
        ("uint8", 3, 90, "auto", (3, 90)),
        ("uint16", 7, 7, "auto", (7, 8)),
    ],
)
def test_presets_of_the_value_range(tmp_path, dtype, low, high, text, expected):
    values = np.linspace(low, high, 64).reshape(1, 8, 8).astype(dtype)
    source = write_raster(tmp_path / "in.tif", values)
    job = inference.prepare(source, replace(BICUBIC, value_range=text), BicubicRestorer())
    assert (job.values.low, job.values.high) == pytest.approx(expected)


def test_values_outside_the_range_are_carried_over(tmp_path):
    image = smooth(1, 20, 20, 2000, 3000)
    image[0, 10, 10] = 12_000
    image[0, 2, 2] = 50
    source = write_raster(tmp_path / "in.tif", image.astype(np.uint16))
    found, _, _ = run(source, tmp_path / "out.tif", replace(BICUBIC, value_range="2100:2900"))
    whole, _, _ = run(source, tmp_path / "all.tif", replace(BICUBIC, value_range="0:12000"))
    assert found.max() > 9000
    assert found.min() < 500
    away = np.ones(found.shape, bool)
    away[:, :24, :24] = away[:, 28:60, 28:60] = False  # there bicubic alone rings
    assert np.abs(found.astype(int) - whole)[away].max() < 30


def test_one_bright_pixel_moves_neither_the_range_nor_the_rest(tmp_path):
    """The kind of s2_one_bright_pixel: a cloud or glint among 4096 pixels."""
    image = smooth(3, 64, 64, 1000, 4000).astype(np.uint16)
    plain = write_raster(tmp_path / "plain.tif", image)
    image[:, 0, 0] = 16_000
    bright = write_raster(tmp_path / "bright.tif", image)
    ranges = [
        inference.prepare(path, BICUBIC, BicubicRestorer()).values for path in (plain, bright)
    ]
    assert ranges[0].high == pytest.approx(4000, abs=1)
    assert ranges[1].high == pytest.approx(4000, rel=0.01)
    found, _, _ = run(bright, tmp_path / "out.tif")
    assert found.max() >= 12_000


@pytest.mark.parametrize(
    ("dtype", "value", "nodata", "written"),
    [("uint8", 0, 0, 0), ("uint16", 7, 7, 7), ("float32", np.nan, None, np.nan)],
)
def test_a_scene_of_only_nodata_gives_only_nodata(tmp_path, dtype, value, nodata, written):
    source = write_raster(tmp_path / "in.tif", np.full((2, 9, 7), value, dtype), nodata=nodata)
    result, profile, _ = run(source, tmp_path / "out.tif")
    assert result.shape == (2, 36, 28)
    assert np.array_equal(result, np.full_like(result, written), equal_nan=dtype == "float32")
    assert np.array_equal(profile["nodata"], written, equal_nan=True)
