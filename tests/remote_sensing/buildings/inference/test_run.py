# SPDX-License-Identifier: Apache-2.0
"""From a raster to footprints, with a predictor whose answer is known: bright is building."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from rasterio import Affine
from sample_rasters import write_raster

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.remote_sensing.buildings.inference.footprints import MISSING, FootprintSettings
from fieldfare.remote_sensing.buildings.inference.run import InferSettings, Targets, infer
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.models import TASK
from fieldfare.remote_sensing.buildings.options import DEFAULT_MODEL

GSD = 0.5
NORTH = Affine(GSD, 0, 500_000, 0, -GSD, 4_000_000)
HOUSES = [
    (10, 8, 20, 30),  # row, column, height, width in pixels
    (50, 50, 28, 30),  # lies on the corner of four tiles of 64
    (10, 90, 40, 20),
    (100, 5, 22, 100),  # crosses two tile borders
    (95, 130, 30, 25),
]
AREAS = sorted(h * w * GSD**2 for _, _, h, w in HOUSES)


class BrightRoofs:
    """A pixel is a building where its bands are above one half."""

    config = NetworkConfig(architecture="lraspp", outputs=("building",), gsd=GSD)
    batch = 3
    knowledge = colours = guard = None

    def __init__(self) -> None:
        self.tiles = 0
        self.stop_after = 10**9

    def __call__(self, tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        self.tiles += len(tiles)
        if self.tiles > self.stop_after:
            raise KeyboardInterrupt
        return (tiles.mean(axis=1, keepdims=True) > 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A weight file, by which runs are told apart."""
    config = NetworkConfig(
        architecture="lraspp", encoder="mobilenetv3_small_050", outputs=("building",), gsd=GSD
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    card = ModelCard("tiny", TASK, "Random weights.", config.to_dict())
    save_model_file(path, BuildingNetwork(config).state_dict(), card)
    return path


def town(path: Path, houses=HOUSES, dtype=np.uint8, bright=220, dark=30, **profile) -> Path:
    """Bright rectangles on dark ground, 160 x 170 pixels of half a metre."""
    image = np.full((3, 160, 170), dark, dtype)
    for row, column, height, width in houses:
        image[:, row : row + height, column : column + width] = bright
    return write_raster(path, image, **{"crs": "EPSG:32636", "transform": NORTH} | profile)


def run(scene: Path, model: Path, target: Path | None = None, **options) -> gpd.GeoDataFrame:
    """Outlines as found, read back from the file."""
    target = target or scene.with_name(f"{scene.stem}_out.gpkg")
    predictor = options.pop("predictor", None) or BrightRoofs()
    targets = Targets(target, options.pop("mask", None), options.pop("probability", None))
    settings = InferSettings(str(model), tile=64, overlap=16, precision="fp32")
    settings = replace(settings, **options)
    infer(scene, targets, settings, predictor)
    return gpd.read_parquet(target) if target.suffix == ".parquet" else gpd.read_file(target)


def test_houses_across_tile_borders_come_out_whole_and_once(tmp_path, model):
    found = run(town(tmp_path / "town.tif"), model)
    assert len(found) == len(HOUSES)
    assert sorted(found["area_m2"]) == pytest.approx(AREAS, rel=0.01)
    assert found.crs == "EPSG:32636"
    assert found.geometry.is_valid.all()
    assert (found["confidence"] > 0.99).all()


@pytest.mark.parametrize("origin", [(1, 0), (17, 33), (40, 5)])
def test_the_tile_grid_may_start_anywhere(tmp_path, model, origin):
    scene = town(tmp_path / "town.tif")
    first = run(scene, model, tmp_path / "a.gpkg")
    moved = run(scene, model, tmp_path / "b.gpkg", origin=origin)
    assert len(first) == len(moved)
    assert first.geometry.geom_equals_exact(moved.geometry, 1e-6).all()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_areas_are_metric_in_any_crs(tmp_path, model, crs):
    degrees = crs == "EPSG:4326"
    step = GSD / 111_320 if degrees else GSD  # at the equator
    transform = Affine(step, 0, 33 if degrees else 3_670_000, 0, -step, 0.01 if degrees else 1000)
    scene = town(tmp_path / "town.tif", crs=crs, transform=transform)
    found = run(scene, model)
    assert len(found) == len(HOUSES)
    assert sorted(found["area_m2"]) == pytest.approx(AREAS, rel=0.02)
    assert found.crs == crs


def test_without_crs_footprints_are_in_pixels_and_gsd_gives_metres(tmp_path, model):
    scene = town(tmp_path / "town.tif", crs=None, transform=Affine.identity())
    found = run(scene, model, gsd=GSD, footprints=FootprintSettings(regularise=False))
    assert sorted(found["area_m2"]) == pytest.approx(AREAS, rel=0.01)
    boxes = {tuple(np.round(bounds).astype(int)) for bounds in found.bounds.to_numpy()}
    assert boxes == {(c, r, c + w, r + h) for r, c, h, w in HOUSES}


def test_a_coarser_scene_is_resampled_to_the_models_pixels(tmp_path, model):
    coarse = NORTH * Affine.scale(2)
    scene = town(tmp_path / "town.tif", transform=coarse)
    found = run(scene, model)
    assert sorted(found["area_m2"]) == pytest.approx([4 * area for area in AREAS], rel=0.05)
    assert found.total_bounds == pytest.approx(
        np.array([500_005, 3_999_875, 500_155, 3_999_990]), abs=2
    )


def test_uint16_is_stretched_once_for_the_whole_scene(tmp_path, model):
    bytes_found = run(town(tmp_path / "town8.tif"), model)
    wide = town(tmp_path / "town16.tif", dtype=np.uint16, bright=2200, dark=300)
    assert run(wide, model).geometry.geom_equals_exact(bytes_found.geometry, 1e-6).all()


def test_nodata_and_alpha_are_not_buildings_and_cut_houses_say_so(tmp_path, model):
    scene = town(tmp_path / "town.tif", nodata=220)
    mask = tmp_path / "mask.tif"
    assert run(scene, model, mask=mask).empty
    with rasterio.open(mask) as source:
        assert set(np.unique(source.read(1))) == {0, MISSING}
    transparent = np.full((160, 170), 255, np.uint8)
    transparent[:, :20] = 0
    with rasterio.open(scene) as source:
        image = np.concatenate([source.read(), transparent[None]])
    interp = [rasterio.enums.ColorInterp[name] for name in ("red", "green", "blue", "alpha")]
    clear = write_raster(tmp_path / "alpha.tif", image, crs="EPSG:32636", transform=NORTH)
    with rasterio.open(clear, "r+") as source:
        source.colorinterp = interp
    found = run(clear, model)
    assert len(found) == len(HOUSES)
    assert found["touches_edge"].sum() == 2  # the first and the fourth are cut by column 20
    assert found.total_bounds[0] >= 500_000 + 20 * GSD - GSD


def test_geojson_is_in_longitude_and_latitude(tmp_path, model):
    target = tmp_path / "town.geojson"
    run(town(tmp_path / "town.tif"), model, target)
    west, south, east, north = gpd.read_file(target).total_bounds
    assert 32.9 < west < east < 33.1
    assert 36 < south < north < 36.2
    assert "crs" not in json.loads(target.read_text())


@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "geojson"])
def test_a_scene_without_buildings_gives_an_empty_but_valid_file(tmp_path, model, suffix):
    scene = town(tmp_path / "empty.tif", houses=[])
    found = run(scene, model, tmp_path / f"empty.{suffix}")
    assert found.empty


def test_mask_and_probabilities_lie_on_the_scene(tmp_path, model):
    scene, mask, probability = (tmp_path / name for name in ("town.tif", "m.tif", "p.tif"))
    run(town(scene), model, mask=mask, probability=probability)
    with rasterio.open(scene) as source, rasterio.open(mask) as made:
        assert made.transform == source.transform
        assert made.crs == source.crs
        assert ((source.read(1) == 220) == (made.read(1) == 1)).all()
    with rasterio.open(probability) as made:
        assert made.descriptions == ("building",)
        assert set(np.unique(made.read(1))) == {0, 250}


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, model):
    scene = town(tmp_path / "town.tif")
    whole, predictor = run(scene, model, tmp_path / "whole.gpkg"), BrightRoofs()
    predictor.stop_after = 7
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        run(scene, model, tmp_path / "resumed.gpkg", predictor=predictor)
    assert not (tmp_path / "resumed.gpkg").exists()
    again = BrightRoofs()
    resumed = run(scene, model, tmp_path / "resumed.gpkg", predictor=again)
    assert again.tiles < 16
    assert resumed.geometry.geom_equals_exact(whole.geometry, 1e-9).all()
    assert not list(tmp_path.glob(".*"))


def test_a_window_gives_what_the_whole_scene_gives_there(tmp_path, model):
    scene = town(tmp_path / "town.tif")
    whole = run(scene, model, tmp_path / "whole.gpkg")
    part = run(scene, model, tmp_path / "part.gpkg", window=(90, 0, 70, 170))
    assert len(part) == 2
    for one in part.geometry:
        assert any(one.equals_exact(other, 1e-6) for other in whole.geometry)


def test_a_truncated_scene_is_bad_input_and_leaves_nothing(tmp_path, model):
    scene = town(
        tmp_path / "town.tif", compress="deflate", tiled=True, blockxsize=64, blockysize=64
    )
    data = scene.read_bytes()
    scene.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"town\.tif"):
        run(scene, model)
    assert [path.name for path in tmp_path.iterdir()] == ["town.tif"]


def test_too_few_bands_are_refused(tmp_path, model):
    grey = write_raster(tmp_path / "grey.tif", np.zeros((1, 20, 20), np.uint8))
    with pytest.raises(InputError, match="takes 3 bands, not 1"):
        run(grey, model)


@pytest.mark.slow
def test_shifting_the_tile_grid_changes_little_of_the_packaged_models_mask(tmp_path, data):
    scene = data / "buildings" / "kampala_oam" / "scene_A_z20.tif"
    settings = InferSettings(DEFAULT_MODEL, precision="fp32", device="cpu")
    predictor, masks = settings.predictor(), []
    for number, origin in enumerate([(0, 0), (37, 101), (200, 300)]):
        targets = Targets(tmp_path / f"{number}.gpkg", mask=tmp_path / f"{number}.tif")
        infer(scene, targets, replace(settings, origin=origin), predictor)
        with rasterio.open(targets.mask) as source:
            masks.append(source.read(1))
    # Where the model hesitates, what else a tile shows decides.
    for one, other in itertools.combinations(masks, 2):
        assert (one != other).mean() < 0.015
