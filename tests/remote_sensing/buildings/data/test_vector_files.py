# SPDX-License-Identifier: Apache-2.0
"""Vector files as people have them: mixed geometry, layers, views, names that lie."""

import contextlib
import http.server
import sqlite3
import threading
from pathlib import Path

import geopandas as gpd
import pytest
import shapely
from click.testing import CliRunner

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.cli import main
from fieldfare.remote_sensing.vectors.reading import read_polygons

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
    (tmp_path / "a.dxf").write_text("0")
    with pytest.raises(InputError, match=r"convert it to one of \*\.geojson.*\*\.kml"):
        read_polygons(tmp_path / "a.dxf")


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32636"])
def test_gml_comes_back_with_its_crs_and_leaves_no_file(tmp_path, crs):
    written, path = tmp_path / "written.gml", tmp_path / "alone" / "a;b!.gml"
    path.parent.mkdir()
    house = shapely.box(30, 1, 30.1, 1.2)
    gpd.GeoDataFrame(geometry=[house], crs=crs).to_file(written, driver="GML")
    written.rename(path)
    found, _ = read_polygons(path)
    assert found.crs == crs
    assert found.total_bounds.tolist() == pytest.approx([30, 1, 30.1, 1.2])
    assert list(path.parent.iterdir()) == [path]


PLACEMARK = """<Placemark><Polygon><outerBoundaryIs><LinearRing><coordinates>30,1,5 30.1,1,5
30.1,1.2,5 30,1.2,5 30,1,5</coordinates></LinearRing></outerBoundaryIs></Polygon></Placemark>"""


def kml(*parts: str) -> str:
    return (
        f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{"".join(parts)}</Document></kml>'
    )


@pytest.mark.parametrize("around", ["{}", "<Folder><name>houses</name>{}</Folder>"])
def test_kml_is_read_with_or_without_a_folder(tmp_path, around):
    path = tmp_path / "a.kml"
    path.write_text(kml(around.format(PLACEMARK)))
    found, _ = read_polygons(path)
    assert (found.crs, len(found)) == ("EPSG:4326", 1)
    assert found.total_bounds.tolist() == pytest.approx([30, 1, 30.1, 1.2])


def test_folders_of_kml_are_layers(tmp_path):
    path = tmp_path / "a.kml"
    folders = (f"<Folder><name>{name}</name>{PLACEMARK}</Folder>" for name in ("old", "new"))
    path.write_text(kml(*folders))
    with pytest.raises(InputError, match=r"several layers \(old, new\).*--layer NAME"):
        read_polygons(path)
    assert len(read_polygons(path, layer="new")[0]) == 1


@pytest.fixture
def asked():
    """An address on this machine, and what is asked of it."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *about: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_nothing_is_fetched_that_gml_or_kml_names(tmp_path, asked):
    address, paths = asked
    (tmp_path / "a.gml").write_text(
        f"""<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs" xmlns:t="{address}/t"
        xmlns:gml="http://www.opengis.net/gml" xmlns:xlink="http://www.w3.org/1999/xlink"
        xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="{address}/t
        {address}/wfs?SERVICE=WFS&amp;REQUEST=DescribeFeatureType&amp;TYPENAME=t:house">
        <gml:featureMember><t:house fid="1"><t:ref xlink:href="{address}/b.gml#b"/><t:geom>
        <gml:Polygon srsName="EPSG:32636"><gml:outerBoundaryIs><gml:LinearRing><gml:coordinates>
        0,0 10,0 10,8 0,8 0,0</gml:coordinates></gml:LinearRing></gml:outerBoundaryIs></gml:Polygon>
        </t:geom></t:house></gml:featureMember></wfs:FeatureCollection>"""
    )
    (tmp_path / "b.kml").write_text(kml(PLACEMARK))
    links = (f"{address}/b.kml", str(tmp_path / "b.kml"))
    linked = (f"<NetworkLink><Link><href>{link}</href></Link></NetworkLink>" for link in links)
    (tmp_path / "a.kml").write_text(kml(*linked, PLACEMARK))
    for name in ("a.gml", "a.kml"):
        assert len(read_polygons(tmp_path / name)[0]) == 1
    assert paths == []


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.gml", "<gml/>", "its outermost element is gml, not FeatureCollection"),
        ("a.kml", '<OGRVRTDataSource><a href="b.kml"/></OGRVRTDataSource>', "not kml"),
        ("a.kml", "<kml", "not a readable vector file"),
        ("a.kml", '<!DOCTYPE kml [<!ENTITY a "b">]><kml>&a;</kml>', "has a DOCTYPE"),
        ("a.kml", "<kml></kml>", "not a readable vector file|holds no"),
    ],
)
def test_xml_that_is_something_else_is_refused(tmp_path, name, text, why):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=why):
        read_polygons(tmp_path / name)
