# SPDX-License-Identifier: Apache-2.0
"""Vector files as people have them: mixed geometry, layers, views, names that lie."""

import contextlib
import sqlite3
from pathlib import Path

import geopandas as gpd
import pytest
import shapely
from click.testing import CliRunner

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.cli import main
from fieldfare.remote_sensing.buildings.data.vectors import read_polygons

CASES = Path(__file__).parents[2] / "cases"
HOUSE = shapely.box(0, 0, 10, 8)


def evaluate(truth: Path, prediction: Path, *options: str) -> str:
    arguments = ["eval", str(truth), "--prediction", str(prediction), *options]
    result = CliRunner().invoke(main, arguments)
    return result.output


def test_labels_osm_mixed_are_the_30_buildings_of_labels_polygons():
    mixed, messages = read_polygons(CASES / "labels_osm_mixed.geojson")
    plain, none = read_polygons(CASES / "labels_polygons.geojson")
    assert (len(mixed), len(plain), none) == (30, 30, [])
    assert messages == [
        f"{CASES / 'labels_osm_mixed.geojson'}: 2 geometries that are no polygons left out"
    ]
    line = evaluate(CASES / "labels_polygons.geojson", CASES / "labels_osm_mixed.geojson")
    assert line.splitlines()[-1].split()[2] == "1"


def test_parts_of_row_houses_multipolygon_are_buildings_before_repair():
    found, messages = read_polygons(CASES / "row_houses_multipolygon.geojson")
    assert len(found) == 6
    assert found.to_crs(32636).area.tolist() == pytest.approx([80] * 6, rel=0.01)
    assert messages == []


def test_two_layers_are_named_and_one_is_chosen(tmp_path):
    """The kind of labels_two_layers."""
    path = tmp_path / "two.gpkg"
    for layer, shapes in (("aoi", [shapely.box(-9, -9, 99, 99)]), ("buildings", [HOUSE, HOUSE])):
        gpd.GeoDataFrame(geometry=shapes, crs="EPSG:32636").to_file(path, layer=layer)
    with pytest.raises(InputError, match=r"several layers \(aoi, buildings\).*--layer NAME"):
        read_polygons(path)
    assert len(read_polygons(path, layer="buildings")[0]) == 2
    with pytest.raises(InputError, match=r"has no layer houses; it has aoi, buildings"):
        read_polygons(path, layer="houses")
    assert "several layers" in evaluate(path, path)
    assert "Error" not in evaluate(path, path, "--layer", "buildings")


def test_an_endless_view_is_refused(tmp_path):
    """The kind of endless_view."""
    path = tmp_path / "view.gpkg"
    gpd.GeoDataFrame(geometry=[HOUSE], crs="EPSG:32636").to_file(path, layer="houses")
    endless = (
        "CREATE VIEW bomb AS WITH RECURSIVE n(fid) AS (SELECT 1 UNION ALL SELECT fid + 1 FROM n) "
        "SELECT n.fid AS fid, geom FROM n, houses"
    )
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(endless)
        db.execute(
            "UPDATE gpkg_geometry_columns SET table_name = 'bomb' WHERE table_name = 'houses'"
        )
        db.commit()
    with pytest.raises(InputError, match="its layer bomb is a view; export it as a table"):
        read_polygons(path)


def test_labels_that_fetch_are_no_geojson():
    with pytest.raises(InputError, match="its content is no geojson"):
        read_polygons(CASES / "labels_that_fetch.geojson")


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".shp", ".json"])
def test_a_list_of_other_files_is_nothing_else(tmp_path, suffix):
    path = tmp_path / f"labels{suffix}"
    path.write_bytes((CASES / "labels_that_fetch.geojson").read_bytes())
    with pytest.raises(InputError, match="not a readable vector file"):
        read_polygons(path)


@pytest.mark.parametrize("suffix", [".parquet", ".geoparquet", ".gpkg", ".fgb", ".shp", ".GPKG"])
def test_formats_are_known_by_their_suffix(tmp_path, suffix):
    path = tmp_path / f"a;b!{suffix}"
    frame = gpd.GeoDataFrame({"kind": ["house"]}, geometry=[HOUSE], crs="EPSG:32636")
    if "parquet" in suffix:
        frame.to_parquet(path)
    else:
        plain = tmp_path / f"plain{suffix}"
        frame.to_file(plain, driver="GPKG" if suffix == ".GPKG" else None)
        plain.rename(path)
        for more in (".shx", ".dbf", ".prj"):
            if plain.with_suffix(more).exists():
                plain.with_suffix(more).rename(path.with_suffix(more))
    assert read_polygons(path)[0].area.tolist() == [80]


def test_other_formats_are_named(tmp_path):
    (tmp_path / "a.gml").write_text("<gml/>")
    with pytest.raises(InputError, match=r"convert it to one of \*\.geojson"):
        read_polygons(tmp_path / "a.gml")
