# SPDX-License-Identifier: Apache-2.0
"""Footprints in any CRS: cleaned in metres, written to files that others read."""

import json

import geopandas as gpd
import numpy as np
import pyarrow.parquet
import pyogrio
import pytest
import shapely

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.inference.vectors import (
    clean,
    fill_holes,
    overlapping,
    part_overlaps,
)
from fieldfare.remote_sensing.buildings.inference.writing import write_footprints
from fieldfare.remote_sensing.vectors.projecting import metric_crs

FRAME = gpd.GeoDataFrame(
    {"id": [1, 2], "confidence": [0.9, 0.5]},
    geometry=[shapely.box(500_000, 0, 500_010, 8), shapely.box(500_010, 0, 500_018, 8)],
    crs="EPSG:32636",
)


@pytest.mark.parametrize(
    ("crs", "bounds", "expected"),
    [
        ("EPSG:4326", (32.5, 0.3, 32.6, 0.4), 32636),
        ("EPSG:4326", (-70.7, -33.5, -70.6, -33.4), 32719),
        ("EPSG:4326", (179.99, 10, 180, 10.1), 32660),
        ("EPSG:3857", (3_620_000, 35_000, 3_630_000, 40_000), 32636),
        ("EPSG:7850", (390_000, 6_460_000, 391_000, 6_461_000), 32750),
    ],
)
def test_metres_are_those_of_the_local_utm_zone(crs, bounds, expected):
    assert metric_crs(crs, bounds).to_epsg() == expected


def test_without_crs_there_is_no_zone_and_outside_the_world_it_is_refused():
    assert metric_crs(None, (0, 0, 1, 1)) is None
    with pytest.raises(InputError, match="outside"):
        metric_crs("EPSG:32636", (1e9, 1e9, 2e9, 2e9))


@pytest.fixture(scope="module")
def cleaned(data) -> dict[str, gpd.GeoDataFrame]:
    """The 1,296 polygons of the regularisation set, cleaned in two CRSs."""
    frame = gpd.read_file(data / "buildings" / "polygons" / "test_data.gpkg")
    return {"raw": frame, "metres": clean(frame), "degrees": clean(frame.to_crs("EPSG:4326"))}


def test_1296_polygons_in_degrees_and_in_metres_are_the_same_1296_valid_polygons(cleaned):
    for name, crs in (("metres", 7850), ("degrees", 4326)):
        frame = cleaned[name]
        assert len(frame) == 1296
        assert frame.crs.to_epsg() == crs
        assert frame.geometry.is_valid.all()
        assert (frame.geom_type == "Polygon").all()
    one = cleaned["metres"].geometry.to_numpy()
    other = cleaned["degrees"].to_crs("EPSG:7850").geometry.to_numpy()
    assert shapely.hausdorff_distance(one, other).max() < 1e-3


def test_1296_polygons_have_no_overlaps_and_keep_their_iou(cleaned):
    raw = cleaned["raw"].geometry.to_numpy()
    for name in ("metres", "degrees"):
        found = cleaned[name].to_crs("EPSG:7850").geometry.to_numpy()
        assert not overlapping(found)
        shared = shapely.area(shapely.intersection(found, raw))
        assert (shared / (shapely.area(found) + shapely.area(raw) - shared)).min() >= 0.8


def test_clean_takes_multipolygons_apart(data):
    frame = gpd.read_file(data / "buildings" / "polygons" / "test_data_multi_geom.gpkg")
    assert len(frame) < 1296
    assert len(clean(frame)) == 1296


def test_clean_removes_overlaps_and_mends_invalid_outlines():
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 12)])
    frame = gpd.GeoDataFrame(
        geometry=[shapely.box(20, 0, 30, 10), shapely.box(28, 0, 40, 10), bow_tie]
    )
    found = clean(frame)
    assert len(found) == 3
    assert found.geometry.is_valid.all()
    assert not overlapping(found.geometry.to_numpy())


def test_clean_leaves_out_what_has_no_area_of_its_own():
    house = shapely.box(0, 0, 10, 10)
    flat = shapely.Polygon([(30, 0), (40, 0), (30, 0)])
    line = shapely.LineString([(50, 0), (60, 0)])
    geometries = [house, None, shapely.Polygon(), flat, line, house]
    frame = gpd.GeoDataFrame({"name": list("abcdef")}, geometry=geometries)
    found = clean(frame)
    assert found["name"].tolist() in (["a"], ["f"])
    assert found.geometry[0].equals(house)
    assert clean(frame[1:5]).empty


def test_what_two_share_stays_with_the_smaller():
    large, small = shapely.box(0, 0, 10, 10), shapely.box(8, 0, 12, 4)
    found = part_overlaps(np.array([large, small]))
    assert found[1].equals(small)
    assert found[0].area == pytest.approx(100 - 8)


def test_only_small_holes_are_filled():
    house = shapely.box(0, 0, 20, 20)
    house = house.difference(shapely.box(2, 2, 4, 4)).difference(shapely.box(8, 8, 14, 14))
    (found,) = fill_holes(np.array([house]), max_hole=5.0)
    assert found.area == 400 - 36


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".geojson"])
@pytest.mark.parametrize("count", [0, 2])
def test_files_come_back_as_they_were(tmp_path, suffix, count):
    target = tmp_path / f"houses{suffix}"
    write_footprints(FRAME[:count], target)
    read = gpd.read_parquet if suffix == ".parquet" else gpd.read_file
    found = read(target)
    if count or suffix != ".geojson":  # without features GeoJSON has no place for columns
        assert list(found.columns) == ["id", "confidence", "geometry"]
    assert len(found) == count
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    if suffix == ".gpkg":
        assert pyogrio.list_layers(target)[:, 0].tolist() == ["footprints"]
    if count and suffix != ".geojson":
        assert found.crs == FRAME.crs
        assert found.geometry.geom_equals(FRAME.geometry).all()


def test_geojson_follows_rfc_7946(tmp_path):
    target = tmp_path / "houses.geojson"
    write_footprints(FRAME, target)
    found = json.loads(target.read_text())
    assert "crs" not in found
    ring = found["features"][0]["geometry"]["coordinates"][0]
    assert shapely.LinearRing(ring).is_ccw
    assert all(32.9 < x < 33.1 and -0.1 < y < 0.1 for x, y in ring)
    assert all(len(str(x).partition(".")[2]) <= 7 for x, _ in ring)


def written(tmp_path, polygons: list) -> gpd.GeoSeries:
    """Polygons through a GeoJSON file, in longitude and latitude."""
    target = tmp_path / "houses.geojson"
    write_footprints(gpd.GeoDataFrame(geometry=polygons, crs="EPSG:32636"), target)
    return gpd.read_file(target).geometry


def turned(*polygons: shapely.Polygon) -> list:
    """Turned by 17 degrees, somewhere in Uganda."""
    placed = (shapely.affinity.rotate(polygon, 17, origin=(0, 0)) for polygon in polygons)
    return [shapely.affinity.translate(polygon, 452_000, 38_000) for polygon in placed]


@pytest.mark.parametrize("gap", [0, 0.002, 0.005, 0.01])
def test_rounding_makes_no_overlaps(tmp_path, gap):
    long = [shapely.box(0, 3 * i, 30, 3 * i + 3 - gap) for i in range(30)]
    short = [shapely.box(30 + gap, 4.1 * i, 44, 4.1 * (i + 1) - gap) for i in range(20)]
    found = written(tmp_path, turned(*long, *short))
    assert len(found) == 50
    assert found.is_valid.all()
    assert not overlapping(found.to_crs("EPSG:32636").to_numpy())
    assert (
        shapely.hausdorff_distance(
            found.to_crs("EPSG:32636").to_numpy(), np.array(turned(*long, *short))
        ).max()
        < 0.05
    )


def test_rounding_leaves_polygons_in_one_piece(tmp_path):
    neck = shapely.union_all(
        [shapely.box(0, 0, 4, 4), shapely.box(4, 1, 8, 1.004), shapely.box(8, 0, 11, 4)]
    )
    found = written(tmp_path, turned(neck, shapely.box(20, 0, 30, 10)))
    assert (found.geom_type == "Polygon").all()
    assert found.is_valid.all()
    assert found.to_crs("EPSG:32636").area.tolist() == pytest.approx([16, 100], rel=0.01)


def test_writing_leaves_overlaps_as_they_are(tmp_path):
    found = written(tmp_path, turned(shapely.box(0, 0, 10, 10), shapely.box(5, 0, 18, 10)))
    assert found.to_crs("EPSG:32636").area.tolist() == pytest.approx([100, 130], rel=0.001)


def test_geoparquet_names_its_version_and_covering_box(tmp_path):
    target = tmp_path / "houses.parquet"
    write_footprints(FRAME, target)
    meta = json.loads(pyarrow.parquet.read_schema(target).metadata[b"geo"])
    assert meta["version"] == "1.1.0"
    assert "covering" in meta["columns"]["geometry"]


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\*\.gpkg, \*\.parquet, \*\.geojson"):
        write_footprints(FRAME, tmp_path / "houses.shp")
    assert not list(tmp_path.iterdir())
