# SPDX-License-Identifier: Apache-2.0
"""Labels: what is repaired, refused and said, and where polygons are drawn."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from sample_rasters import write_raster
from sample_scenes import KAMPALA, draw_boxes, write_labels, write_town
from scipy import ndimage

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.data.labels import (
    EDGE_WIDTH,
    Labels,
    edges,
    read_labels,
)
from fieldfare.remote_sensing.vectors.reading import read_polygons


def labels_of(*boxes):
    """Labels of (row, column, height, width) boxes."""
    polygons = [shapely.box(c, r, c + w, r + h) for r, c, h, w in boxes]
    return Labels(np.array(polygons, object))


def drawn(labels, shape):
    return labels.instances(0, 0, *shape, shape) > 0


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "parquet", "shp"])
@pytest.mark.parametrize("label_crs", ["EPSG:32636", "EPSG:4326", "EPSG:3857"])
def test_labels_of_any_format_and_crs_lie_on_the_roofs(tmp_path, suffix, label_crs):
    town = write_town(tmp_path, label_crs=label_crs, label_format=suffix)
    labels = read_labels(town.labels, town.image)
    assert labels.messages == ()
    boxes = np.array([(r, c, r + h, c + w) for r, c, h, w in town.boxes])
    left, top, right, bottom = shapely.bounds(labels.polygons).T
    np.testing.assert_allclose(np.stack([top, left, bottom, right], 1), boxes, atol=0.02)


def test_a_rotated_transform_is_undone(tmp_path):
    town = write_town(tmp_path)
    turned = town.transform * rasterio.Affine.rotation(30)
    image = write_raster(
        tmp_path / "turned.tif",
        np.zeros((3, *town.shape), np.uint8),
        crs="EPSG:32636",
        transform=turned,
    )
    houses = [shapely.box(10, 20, 30, 50), shapely.box(100, 60, 120, 90)]
    path = write_labels(tmp_path / "turned.gpkg", houses, turned, "EPSG:32636", "EPSG:4326")
    found = read_labels(path, image).polygons
    for polygon, house in zip(found, houses, strict=True):
        assert polygon.symmetric_difference(house).area < 0.01 * house.area


def test_labels_without_crs_are_taken_to_be_in_that_of_the_image(tmp_path):
    town = write_town(tmp_path, label_crs=None, label_format="gpkg")
    labels = read_labels(town.labels, town.image)
    assert (drawn(labels, town.shape) == town.mask).all()
    (message,) = labels.messages
    assert "town.gpkg" in message
    assert "no CRS; taken to be in that of town.tif" in message


def test_an_image_without_crs_takes_labels_in_pixels(tmp_path):
    town = write_town(tmp_path, crs=None)
    labels = read_labels(town.labels, town.image)
    assert labels.messages == ()
    assert (drawn(labels, town.shape) == town.mask).all()


def test_labels_on_another_place_are_refused(tmp_path):
    here = write_town(tmp_path / "here")
    there = write_town(tmp_path / "there", centre=(KAMPALA[0], KAMPALA[1] + 0.1), name="there")
    with pytest.raises(InputError, match=r"there\.geojson: none of its 36 polygons .* check the"):
        read_labels(there.labels, here.image)


def test_labels_without_crs_in_degrees_are_refused(tmp_path):
    """The usual mistake: degrees read as metres of UTM lie far from the image."""
    town = write_town(tmp_path, label_crs="EPSG:4326", label_format="gpkg")
    frame = gpd.read_file(town.labels).set_crs(None, allow_override=True)
    frame.to_file(tmp_path / "lost.gpkg")
    with pytest.raises(InputError, match=r"lost\.gpkg: none of its"):
        read_labels(tmp_path / "lost.gpkg", town.image)


def test_labels_on_earth_for_an_image_of_no_place_on_earth_are_refused(tmp_path):
    town = write_town(tmp_path)
    site = 'LOCAL_CS["site",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]'
    values = np.zeros((3, *town.shape), np.uint8)
    image = write_raster(tmp_path / "site.tif", values, crs=site, transform=town.transform)
    with pytest.raises(InputError, match=r"town\.geojson: cannot be brought .* site\.tif"):
        read_labels(town.labels, image)


def test_polygons_outside_are_counted_and_left_out(tmp_path):
    town = write_town(tmp_path, houses=[(10, 10, 20, 20), (300, 10, 20, 20), (10, 400, 5, 5)])
    labels = read_labels(town.labels, town.image)
    assert len(labels.polygons) == 1
    assert "2 polygons lie outside town.tif" in labels.messages[0]


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "parquet"])
def test_a_file_without_polygons_says_that_there_is_no_building(tmp_path, suffix):
    town = write_town(tmp_path, houses=[], label_format=suffix)
    labels = read_labels(town.labels, town.image)
    assert not drawn(labels, town.shape).any()
    assert "no polygon, so no building" in labels.messages[0]


def test_missing_and_empty_geometries_are_left_out(tmp_path):
    house = shapely.box(0, 0, 4, 4)
    path = write_labels(tmp_path / "some.gpkg", [house, shapely.Polygon(), house])
    frame = gpd.read_file(path)
    frame.loc[2, "geometry"] = None
    frame.to_file(path)
    found, messages = read_polygons(path)
    assert len(found) == 1
    assert messages == [f"{path}: 2 empty geometries left out"]


def test_an_invalid_polygon_is_repaired_to_its_two_lobes_and_counted(tmp_path):
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    path = write_labels(tmp_path / "tie.geojson", [bow_tie, shapely.box(20, 0, 24, 4)])
    frame, messages = read_polygons(path)
    assert messages == [f"{path}: 1 invalid geometries repaired"]
    assert frame.geometry.is_valid.all()
    assert sorted(frame.geometry.area.round(6)) == [16, 25, 25]


def test_a_line_folded_back_is_no_building(tmp_path):
    flat = shapely.Polygon([(0, 0), (10, 0), (5, 0)])
    frame, messages = read_polygons(
        write_labels(tmp_path / "flat.geojson", [flat, shapely.box(0, 0, 1, 1)])
    )
    assert len(frame) == 1
    assert "1 invalid" in messages[0]


def test_the_invalid_footprint_of_kampala_is_repaired(data):
    folder = data / "buildings" / "kampala_oam"
    path = folder / "labels.geojson"
    raw = gpd.read_file(path).geometry
    assert [i for i, valid in enumerate(raw.is_valid) if not valid] == [107]
    frame, messages = read_polygons(path)
    assert messages == [f"{path}: 1 invalid geometries repaired"]
    assert frame.geometry.is_valid.all()
    assert set(frame.geom_type) == {"Polygon"}
    repaired = frame.geometry[frame.intersects(raw[107].envelope)].union_all()
    hull = raw[107].convex_hull
    assert 0.3 < repaired.intersection(hull).area / hull.area <= 1
    labels = read_labels(path, folder / "scene_A_z20.tif")
    share = drawn(labels, (1024, 1536)).mean()
    assert share == pytest.approx(0.242, abs=0.001)  # as the data's own description says


def test_multipolygons_become_one_building_a_part(tmp_path):
    parts = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(5, 5, 8, 8)])
    frame, messages = read_polygons(write_labels(tmp_path / "many.gpkg", [parts]))
    assert sorted(frame.geometry.area) == [4, 9]
    assert messages == []


def test_heights_are_dropped(tmp_path):
    house = shapely.Polygon([(0, 0, 3), (4, 0, 3), (4, 4, 3), (0, 4, 3)])
    frame, _ = read_polygons(write_labels(tmp_path / "high.gpkg", [house]))
    assert not frame.geometry.has_z.any()
    assert frame.geometry.area.tolist() == [16]


def test_a_geometry_column_of_another_name_is_found(tmp_path):
    frame = gpd.GeoDataFrame({"outline": [shapely.box(0, 0, 2, 2)]}, geometry="outline")
    frame.to_parquet(tmp_path / "named.parquet")
    assert read_polygons(tmp_path / "named.parquet")[0].geometry.area.tolist() == [4]


@pytest.mark.parametrize("geometry", [shapely.Point(1, 1), shapely.LineString([(0, 0), (5, 5)])])
def test_points_and_lines_alone_are_refused(tmp_path, geometry):
    path = write_labels(tmp_path / "others.geojson", [geometry, geometry])
    with pytest.raises(InputError, match=r"others\.geojson: holds other geometries than polygons"):
        read_polygons(path)


@pytest.mark.parametrize("name", ["torn.geojson", "torn.gpkg", "torn.parquet", "torn.tif"])
def test_unreadable_files_are_refused_in_one_line(tmp_path, town, name):
    (tmp_path / name).write_text("{ no vector file")
    with pytest.raises(InputError, match=rf"{name}: not a readable") as caught:
        read_labels(tmp_path / name, town.image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["none.geojson", "none.tif", "none.parquet"])
def test_a_missing_file_is_named(tmp_path, town, name):
    with pytest.raises(InputError, match=rf"{name}: no such file"):
        read_labels(tmp_path / name, town.image)


def test_a_table_without_geometry_is_refused(tmp_path, town):
    (tmp_path / "list.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"list\.csv: holds no geometries"):
        read_labels(tmp_path / "list.csv", town.image)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_mask_is_drawn_as_it_was(tmp_path, suffix):
    town = write_town(tmp_path)
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=town.shape), 2) > 0.05
    path = tmp_path / f"mask.{suffix}"
    driver = {"tif": "GTiff", "png": "PNG"}[suffix]
    with rasterio.open(
        path, "w", driver=driver, width=256, height=256, count=1, dtype="uint8"
    ) as target:
        target.write(mask.astype(np.uint8) * 255, 1)
    labels = read_labels(path, town.image)
    assert shapely.is_valid(labels.polygons).all()
    assert (drawn(labels, town.shape) == mask).all()
    assert len(labels.polygons) == ndimage.label(mask)[1]


def test_an_empty_mask_says_no_building(tmp_path, town):
    here = {"crs": "EPSG:32636", "transform": town.transform}
    path = write_raster(tmp_path / "mask.tif", np.zeros((1, *town.shape), np.uint8), **here)
    assert not drawn(read_labels(path, town.image), town.shape).any()


def test_a_mask_of_another_size_is_refused(tmp_path, town):
    path = write_raster(tmp_path / "mask.tif", np.zeros((1, 100, 256), np.uint8))
    with pytest.raises(InputError, match=r"mask\.tif: has 256 x 100 pixels, town\.tif 256 x 256"):
        read_labels(path, town.image)


def test_instances_number_each_building(tmp_path):
    labels = labels_of((2, 3, 5, 6), (10, 1, 4, 9))
    found = labels.instances(0, 0, 16, 12, (16, 12))
    assert found.dtype == np.int32
    assert (found == 1).sum() == 30
    assert (found == 2).sum() == 36
    assert (found[2:7, 3:9] == 1).all()


@pytest.mark.parametrize("top", [0, 0.4, 3.25, -2])
@pytest.mark.parametrize("left", [0, 0.7, 5.5])
@pytest.mark.parametrize("factor", [0.5, 1, 1.7, 3])
def test_a_window_at_fractions_shows_the_ground_below_each_centre(top, left, factor):
    boxes = [(4, 6, 7, 9), (14.3, 2.6, 5, 8.2), (12, 18, 9, 3)]
    shape = (round(20 * factor), round(24 * factor))
    found = labels_of(*boxes).instances(top, left, 20, 24, shape)
    rows = top + (np.arange(shape[0]) + 0.5) * 20 / shape[0]
    columns = left + (np.arange(shape[1]) + 0.5) * 24 / shape[1]
    for number, (r, c, h, w) in enumerate(boxes, start=1):
        # a centre that lies on an outline may fall to either side
        sure = np.outer(
            (rows > r + 1e-6) & (rows < r + h - 1e-6),
            (columns > c + 1e-6) & (columns < c + w - 1e-6),
        )
        maybe = np.outer(
            (rows > r - 1e-6) & (rows < r + h + 1e-6),
            (columns > c - 1e-6) & (columns < c + w + 1e-6),
        )
        assert (found[sure] == number).all()
        assert not (found[~maybe] == number).any()


def test_a_window_beside_all_buildings_is_empty():
    assert not labels_of((0, 0, 5, 5)).instances(50, 50, 9, 9, (9, 9)).any()


def test_numbers_do_not_depend_on_the_window():
    labels = labels_of((0, 0, 5, 5), (10, 10, 5, 5), (20, 20, 5, 5))
    whole = labels.instances(0, 0, 30, 30, (30, 30))
    part = labels.instances(8, 8, 20, 20, (20, 20))
    assert (part == whole[8:28, 8:28]).all()
    assert set(np.unique(part)) == {0, 2, 3}


def test_edges_lie_inside_the_outline_and_are_two_pixels_wide():
    mask = draw_boxes((30, 30), [(5, 5, 20, 20)])
    inner = draw_boxes((30, 30), [(7, 7, 16, 16)])
    assert EDGE_WIDTH == 2
    assert (edges(mask.astype(np.int32)) == (mask & ~inner)).all()


def test_touching_roofs_have_an_edge_between_them():
    pair = np.zeros((20, 40), np.int32)
    pair[:, :20], pair[:, 20:] = 1, 2
    expected = np.zeros((20, 40), bool)
    expected[:, 18:22] = True
    assert (edges(pair) == expected).all()  # and none where a roof meets the image's border
    assert not edges(np.minimum(pair, 1)).any()
