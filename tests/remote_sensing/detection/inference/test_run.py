# SPDX-License-Identifier: Apache-2.0
"""From a scene to detections: what tiles, windows, resumption and formats must not change."""

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from sample_objects import GSD, RADIUS, Discs, draw, write_orchard
from sample_rasters import write_raster

from fieldfare.remote_sensing.detection.evaluation.matching import pair_points
from fieldfare.remote_sensing.detection.inference.predict import load_predictor
from fieldfare.remote_sensing.detection.inference.run import InferSettings, Targets, infer

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """`Discs` has no file of weights."""
    monkeypatch.setattr(
        "fieldfare.remote_sensing.detection.inference.run.identity", lambda settings: {}
    )


def places(count=40, height=400, width=560):
    """Middles of discs that touch neither each other nor the rim."""
    rng, found = np.random.default_rng(0), []
    while len(found) < count:
        here = rng.integers(RADIUS + 2, (width - RADIUS - 2, height - RADIUS - 2)).astype(float)
        if all(np.hypot(*(here - other)) > 2 * RADIUS + 4 for other in found):
            found.append(here)
    return np.array(found)


def run(image, target, *, predictor=None, **more):
    settings = InferSettings(**{"model": "discs", **more})
    infer(image, Targets(target), settings, predictor or Discs())
    return target


def middles(path):
    frame = gpd.read_file(path)
    found = np.column_stack((frame.x, frame.y))
    return found[np.lexsort(found.T)]


@pytest.mark.parametrize(("tile", "overlap"), [(512, 128), (128, 64), (192, 64), (160, 64)])
def test_every_object_is_found_once_however_the_tiles_lie(tmp_path, tile, overlap):
    orchard = write_orchard(tmp_path, middles=places(), size=(400, 560))
    found = middles(run(orchard.image, tmp_path / "o.gpkg", tile=tile, overlap=overlap))
    with rasterio.open(orchard.image) as dataset:
        expected = np.array([dataset.transform * tuple(place) for place in orchard.middles])
    np.testing.assert_allclose(found, expected[np.lexsort(expected.T)], atol=0.02)


def test_tiles_and_batches_give_the_same_bytes(tmp_path):
    orchard = write_orchard(tmp_path, middles=places(), size=(400, 560))
    contents = set()
    for number, (tile, overlap, batch) in enumerate([(512, 128, 1), (128, 64, 1), (128, 64, 5)]):
        target = tmp_path / f"{number}.geojson"
        run(orchard.image, target, tile=tile, overlap=overlap, batch=batch)
        contents.add(target.read_text())
    assert len(contents) == 1


def test_a_window_has_the_objects_of_the_whole_whose_middle_lies_in_it(tmp_path):
    orchard = write_orchard(tmp_path, middles=places(), size=(400, 560))
    options = {"tile": 128, "overlap": 64}
    whole = middles(run(orchard.image, tmp_path / "w.gpkg", **options))
    part = middles(run(orchard.image, tmp_path / "p.gpkg", window=(100, 130, 200, 300), **options))
    with rasterio.open(orchard.image) as dataset:
        pixels = np.array([~dataset.transform * tuple(place) for place in whole])
    inside = (pixels[:, 0] >= 130) & (pixels[:, 0] < 430)
    inside &= (pixels[:, 1] >= 100) & (pixels[:, 1] < 300)
    np.testing.assert_array_equal(part, whole[inside])
    assert 5 < len(part) < len(whole)


def test_boxes_lie_on_the_discs_in_map_coordinates(tmp_path, orchard):
    frame = gpd.read_file(run(orchard.image, tmp_path / "o.gpkg"))
    assert frame.crs.to_epsg() == 32611
    assert list(frame.columns) == ["class", "confidence", "x", "y", "model", "geometry"]
    assert set(frame["class"]) == {"tree"}
    np.testing.assert_allclose(frame.geometry.area, (2 * RADIUS * GSD) ** 2, rtol=1e-6)
    centres = shapely.get_coordinates(frame.geometry.centroid)
    np.testing.assert_allclose(centres, frame[["x", "y"]], atol=1e-6)
    assert (np.diff(frame.confidence) <= 0).all()


def test_points_are_the_middles_of_the_boxes(tmp_path, orchard):
    frame = gpd.read_file(run(orchard.image, tmp_path / "o.gpkg", points=True))
    assert set(frame.geom_type) == {"Point"}
    np.testing.assert_array_equal(shapely.get_coordinates(frame.geometry), frame[["x", "y"]])


@pytest.mark.parametrize("points", [False, True])
def test_geojson_is_in_degrees_and_lies_on_the_same_ground(tmp_path, orchard, points):
    metres = gpd.read_file(run(orchard.image, tmp_path / "o.gpkg", points=points))
    degrees = gpd.read_file(run(orchard.image, tmp_path / "o.geojson", points=points))
    assert degrees.crs.to_epsg() == 4326
    back = degrees.to_crs(32611)
    assert (back.distance(metres) < 0.05).all()
    assert set(degrees.geom_type) == set(metres.geom_type)


def test_points_across_the_180th_meridian_have_longitudes_within_bounds(tmp_path):
    transform = rasterio.Affine(3e-6, 0, 180 - 112 * 3e-6, 0, -3e-6, 0.0)
    image = write_raster(
        tmp_path / "in.tif",
        draw(np.array([(60.0, 60.0), (180.0, 60.0)]), 160, 224),
        crs="EPSG:4326",
        transform=transform,
    )
    frame = gpd.read_file(run(image, tmp_path / "o.geojson", points=True))
    assert len(frame) == 2
    assert sorted(np.sign(frame.geometry.x)) == [-1, 1]
    assert (frame.geometry.x.abs() <= 180).all()


def test_coco_has_boxes_in_pixels_of_the_raster_even_where_it_was_resampled(tmp_path):
    orchard = write_orchard(tmp_path)
    half = tmp_path / "half.tif"
    with rasterio.open(orchard.image) as dataset:
        values = dataset.read()[:, ::2, ::2]
        write_raster(half, values, transform=dataset.transform * rasterio.Affine.scale(2))
    content = json.loads(run(half, tmp_path / "o.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "half.tif", "height": 80, "width": 112}]
    assert content["categories"] == [{"id": 1, "name": "tree"}]
    found = np.array([row["bbox"] for row in content["annotations"]])
    centres = found[:, :2] + found[:, 2:] / 2
    order = np.lexsort(centres.T)
    expected = orchard.middles[np.lexsort(orchard.middles.T)] / 2
    np.testing.assert_allclose(centres[order], expected, atol=0.6)
    point = content["annotations"][0]["point"]
    with rasterio.open(half) as dataset:
        np.testing.assert_allclose(~dataset.transform * tuple(point), centres[0], atol=1e-2)


def test_missing_pixels_hold_nothing_and_a_scene_of_them_gives_an_empty_layer(tmp_path):
    values = draw(np.array([(30.0, 30.0), (120.0, 100.0)]), 160, 224)
    values[:, :64, :64] = 0
    here = {"transform": rasterio.Affine(GSD, 0, 5e5, 0, -GSD, 4e6), "nodata": 0}
    partly = write_raster(tmp_path / "partly.tif", values, **here)
    assert len(gpd.read_file(run(partly, tmp_path / "o.gpkg"))) == 1
    empty = write_raster(tmp_path / "empty.tif", np.zeros_like(values), **here)
    frame = gpd.read_file(run(empty, tmp_path / "e.gpkg"))
    assert frame.empty
    assert "confidence" in frame.columns


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    orchard = write_orchard(tmp_path, middles=places(), size=(400, 560))
    options = {"tile": 128, "overlap": 64, "batch": 1}
    whole = run(orchard.image, tmp_path / "whole.geojson", **options).read_text()

    class Tired(Discs):
        calls = 0

        def __call__(self, tiles, least):
            self.calls += 1
            if self.calls > 20:
                raise KeyboardInterrupt
            return super().__call__(tiles, least)

    class Counting(Discs):
        calls = 0

        def __call__(self, tiles, least):
            self.calls += 1
            return super().__call__(tiles, least)

    target = tmp_path / "o.geojson"
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        run(orchard.image, target, predictor=Tired(), **options)
    assert not target.exists()
    rest = Counting()
    run(orchard.image, target, predictor=rest, **options)
    assert target.read_text() == whole
    assert rest.calls < 63
    assert not list(tmp_path.glob(".*partial"))


def test_a_scene_without_crs_gives_pixels(tmp_path):
    image = write_raster(
        tmp_path / "in.tif",
        draw(np.array([(60.0, 40.0)]), 160, 224),
        crs=None,
        transform=rasterio.Affine.identity(),
    )
    frame = gpd.read_file(run(image, tmp_path / "o.gpkg"))
    assert frame.crs is None
    np.testing.assert_allclose(frame[["x", "y"]].to_numpy(), [[60, 40]], atol=0.05)


def test_a_real_network_gives_the_same_again_and_agrees_with_its_batches(tmp_path, detector):
    orchard = write_orchard(tmp_path, middles=places(), size=(400, 560))
    predictor = load_predictor(str(detector))
    options = {"model": str(detector), "tile": 128, "overlap": 64}
    tables = [
        gpd.read_file(
            run(orchard.image, tmp_path / f"{n}.gpkg", predictor=predictor, batch=batch, **options)
        )
        for n, batch in enumerate((1, 1, 7))
    ]
    assert len(tables[0]) > 0
    assert tables[0].equals(tables[1])
    one, other = (table[["x", "y"]].to_numpy() for table in (tables[0], tables[2]))
    # of two almost equal confidences, as random weights give many, another may win
    same = (pair_points(one, other, 1e-3) >= 0).mean()
    assert same > 0.9
