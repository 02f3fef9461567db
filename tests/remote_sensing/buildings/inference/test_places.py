# SPDX-License-Identifier: Apache-2.0
"""Footprints where the scene lies, whatever tells its place: nothing, points, a plane, degrees."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.shutil
import shapely
from click.testing import CliRunner, Result
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from sample_rasters import write_raster

from fieldfare.common.errors import InputError
from fieldfare.common.windows import plan
from fieldfare.remote_sensing.buildings.cli import main
from fieldfare.remote_sensing.buildings.inference.run import InferSettings, Targets, infer
from fieldfare.remote_sensing.buildings.networks.building_network import NetworkConfig
from fieldfare.remote_sensing.rasters.extent import held_by
from fieldfare.remote_sensing.rasters.reading import Scene
from fieldfare.remote_sensing.vectors.dateline import joined, near, parted

MODEL = "unetplusplus_lite0_drone"
HOUSES = [(20, 30, 60, 80), (120, 110, 50, 50), (160, 170, 40, 30)]  # the last one is cut off
METRES = 0.15**2 * sum(h * w for _, _, h, w in HOUSES)
LOCAL = 'LOCAL_CS["site grid",UNIT["metre",1]]'


class BrightRoofs:
    """A pixel is a building where its bands are above one half."""

    config = NetworkConfig(architecture="lraspp", outputs=("building",), gsd=0.3)
    batch = 2
    knowledge = colours = guard = None

    def __call__(self, tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return (tiles.mean(axis=1, keepdims=True) > 0.5).astype(np.float32)


def town(path: Path, **profile) -> Path:
    """200 x 200 pixels of 0.15 m."""
    image = np.full((3, 200, 200), 30, np.uint8)
    for row, column, height, width in HOUSES:
        image[:, row : row + height, column : column + width] = 220
    return write_raster(path, image, **{"crs": None, "transform": Affine.identity()} | profile)


def outline(scene: Path, suffix: str = ".gpkg", **options) -> gpd.GeoDataFrame:
    target = scene.with_name(f"found{suffix}")
    settings = InferSettings(MODEL, tile=64, overlap=16, precision="fp32", **options)
    mask = scene.with_name("mask.tif")
    infer(scene, Targets(target, mask, preview=scene.with_name("p.png")), settings, BrightRoofs())
    return gpd.read_file(target)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_a_picture_without_crs_gets_none_and_gsd_gives_metres(tmp_path, suffix):
    """The kind of drone_no_crs."""
    found = outline(town(tmp_path / "drone.tif"), suffix, gsd=0.15)
    if suffix == ".gpkg":
        assert found.crs is None
        with rasterio.open(tmp_path / "mask.tif") as mask:
            assert mask.crs is None
    assert len(found) == 3
    assert found["area_m2"].sum() == pytest.approx(METRES, rel=0.02)
    assert found["area_m2"].sum() == pytest.approx(found.area.sum() * 0.15**2, rel=0.001)
    left, top, right, bottom = found.total_bounds
    assert min(left, top) >= 0
    assert max(right, bottom) <= 200


def test_gcps_only_tell_crs_and_pixel_size(tmp_path):
    corners = [(0, 0), (0, 200), (200, 0), (200, 200)]
    points = [
        GroundControlPoint(row=r, col=c, x=450_000 + 0.15 * c, y=38_000 - 0.15 * r)
        for r, c in corners
    ]
    scene = town(tmp_path / "gcps_only.tif", gcps=points, crs="EPSG:32636", transform=None)
    found = outline(scene)
    assert found.crs == "EPSG:32636"
    assert found["area_m2"].sum() == pytest.approx(METRES, rel=0.02)
    left, bottom, right, top = found.total_bounds
    assert (left >= 450_000, right <= 450_030, bottom >= 37_970, top <= 38_000) == (True,) * 4
    bent = [*points[:3], GroundControlPoint(row=200, col=200, x=450_040, y=37_970)]
    scene = town(tmp_path / "bent.tif", gcps=bent, crs="EPSG:32636", transform=None)
    with pytest.raises(InputError, match="miss a plane grid by"):
        outline(scene)


def test_rpcs_alone_are_refused_by_name(tmp_path):
    numbers = {"line_num_coeff": [0.0] * 20, "line_den_coeff": [1.0] + [0.0] * 19}
    numbers |= {"samp_num_coeff": [0.0] * 20, "samp_den_coeff": [1.0] + [0.0] * 19}
    names = ("height", "lat", "line", "long", "samp")
    numbers |= {f"{name}_{part}": 1.0 for name in names for part in ("off", "scale")}
    scene = town(tmp_path / "rpc.tif", rpcs=RPC(**numbers), transform=None)
    result = call("infer", scene, "-o", tmp_path / "o.gpkg", "--depth", 1)
    assert result.exit_code == 2
    assert "gdalwarp -rpc" in result.stderr


@pytest.mark.parametrize("gsd", [None, 0.15])
def test_local_crs_has_its_own_unit(tmp_path, gsd):
    transform = Affine(0.15, 0, 1000, 0, -0.15, 2000)
    found = outline(town(tmp_path / "local_crs.tif", crs=LOCAL, transform=transform), gsd=gsd)
    assert found["area_m2"].sum() == pytest.approx(METRES, rel=0.02)
    assert found.total_bounds.tolist() == pytest.approx([1004.5, 1970, 1030, 1997], abs=0.4)
    assert found.total_bounds[1] >= 1970


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_antimeridian_degrees_go_on_above_180_and_are_parted_in_geojson(tmp_path, crs):
    step = 0.15 / 111_320 / np.cos(np.radians(16.8))
    transform = Affine(step, 0, 180 - 100 * step, 0, -0.15 / 111_320, -16.8)
    if crs == "EPSG:3857":
        half = np.pi * 6378137
        to_metres = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        step = step * half / 180
        transform = Affine(step, 0, half - 100 * step, 0, -step, to_metres.transform(0, -16.8)[1])
    scene = town(tmp_path / "antimeridian.tif", crs=crs, transform=transform)
    found = outline(scene)
    turn = 0.1 if crs == "EPSG:4326" else 100
    assert (found.bounds["maxx"] - found.bounds["minx"]).max() < turn
    assert found["area_m2"].sum() == pytest.approx(METRES, rel=0.03)
    split = outline(scene, ".geojson")
    assert split.is_valid.all()
    assert shapely.get_num_geometries(split.geometry.to_numpy()).tolist() == [2, 1, 1]
    assert np.abs(split.total_bounds[[0, 2]]).max() <= 180
    geod = pyproj.Geod(ellps="WGS84")
    area = sum(abs(geod.geometry_area_perimeter(shape)[0]) for shape in split.geometry)
    assert area == pytest.approx(split["area_m2"].sum(), rel=0.02)


def test_polygons_around_the_earth():
    box = shapely.box(179, 0, 181, 1)
    jumped = shapely.Polygon([(179, 0), (-179, 0), (-179, 1), (179, 1)])
    assert joined(np.array([jumped]))[0].equals(box)
    assert parted(np.array([box]))[0].bounds == (-180, 0, 180, 1)
    assert parted(np.array([box]))[0].area == 2
    away = shapely.box(-179, 0, -178, 1)
    assert near(np.array([away]), pyproj.CRS("EPSG:4326"), 180)[0].bounds[0] == 181
    assert near(np.array([away]), pyproj.CRS("EPSG:32636"), 180)[0].equals(away)


def test_imagery_far_coarser_than_the_model_is_refused_and_coarse_is_told(tmp_path):
    for gsd, code, message in ((10, 2, "pixels of 10 m"), (1, 0, "3.3 times as coarse")):
        transform = Affine(gsd, 0, 450_000, 0, -gsd, 38_000)
        scene = town(tmp_path / f"{gsd}.tif", crs="EPSG:32636", transform=transform)
        result = call("infer", scene, "-o", tmp_path / f"{gsd}.gpkg", "--depth", 1, "--dry-run")
        assert result.exit_code == code
        assert message in result.output


def test_coarser_pixels_are_fewer_and_are_told(tmp_path):
    transform = Affine(0.3, 0, 450_000, 0, -0.3, 38_000)
    scene = town(tmp_path / "town.tif", crs="EPSG:32636", transform=transform)
    found = []
    for number, more in enumerate(((), ("--pixel-size", 0.6))):
        target = tmp_path / f"{number}.geojson"
        result = call("infer", scene, "-o", target, "--depth", 1, "--json", *more)
        assert result.exit_code == 0, result.output
        found.append(json.loads(result.stdout))
        assert ("resampled to 0.6 m" in result.stderr) == bool(more)
    assert found[1]["width"] == pytest.approx(found[0]["width"] / 2, abs=1)
    with pytest.raises(InputError, match=r"--pixel-size 0\.0: must be above 0"):
        InferSettings(MODEL, pixel_size=0.0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_a_scene_of_only_nodata_gives_an_empty_result(tmp_path, dtype):
    transform = Affine(0.3, 0, 450_000, 0, -0.3, 38_000)
    image = np.zeros((3, 70, 70), dtype)
    scene = write_raster(
        tmp_path / "void.tif", image, crs="EPSG:32636", transform=transform, nodata=0
    )
    assert len(outline(scene)) == 0


def test_nan_from_the_network_is_an_error(tmp_path):
    import torch

    from fieldfare.common.errors import RunError
    from fieldfare.remote_sensing.buildings.inference.predict import load_predictor

    predictor = load_predictor(MODEL, depth=1)
    predictor.network = lambda image: torch.full((len(image), 2, 64, 64), float("nan"))
    with pytest.raises(RunError, match="no numbers"):
        predictor(np.zeros((1, 3, 64, 64), np.float32), np.zeros((1, 2), np.int64))


def test_tiles_that_hold_data_are_counted(tmp_path):
    image = np.zeros((3, 300, 100), np.uint8)
    image[:, 200:210, 10:20] = 9
    scene = write_raster(tmp_path / "sparse.tif", image, nodata=0)
    tiles = plan((300, 100), 50, 0)
    with Scene(scene) as opened:
        held = held_by(opened, tiles)
    assert (len(tiles), held.tiles) == (12, 1)
    assert held.share == pytest.approx(1 / 6)
    target = tmp_path / "o.gpkg"
    result = call("infer", scene, "-o", target, "--dry-run", "--depth", 1, "--gsd", 0.3, "--json")
    found = json.loads(result.stdout)
    assert found["tiles_with_data"] >= 1
    assert found["disk_mb"] >= 0


@pytest.mark.parametrize("name", ["a;b.gpkg", "a!b.geojson", "a\nb.gpkg", "a:b?.parquet"])
def test_outputs_of_odd_names_are_written(tmp_path, name):
    scene = town(tmp_path / "drone.tif")
    settings = InferSettings(MODEL, tile=64, overlap=16, gsd=0.15)
    infer(scene, Targets(tmp_path / name), settings, BrightRoofs())
    assert {path.name for path in tmp_path.iterdir()} == {"drone.tif", name}


def test_a_geopackage_has_the_same_bytes_from_run_to_run(tmp_path):
    scene = town(tmp_path / "drone.tif")
    settings = InferSettings(MODEL, tile=64, overlap=16, gsd=0.15)
    written = []
    for batch in (1, 3):
        paths = [tmp_path / name for name in ("o.gpkg", "m.tif", "p.tif")]
        options = settings.__class__(**settings.__dict__ | {"batch": batch})
        infer(scene, Targets(*paths), options, BrightRoofs())
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]


def test_outputs_appear_together_and_the_same_command_goes_on(tmp_path, monkeypatch):
    from fieldfare.remote_sensing.buildings.inference import run

    scene = town(tmp_path / "drone.tif")
    settings = InferSettings(MODEL, tile=64, overlap=16, gsd=0.15)
    paths = [tmp_path / name for name in ("o.gpkg", "m.tif", "p.tif")]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "write_footprints", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        infer(scene, Targets(*paths), settings, BrightRoofs())
    assert not any(path.exists() for path in paths)
    monkeypatch.undo()
    done: list[int] = []
    infer(
        scene,
        Targets(*paths),
        settings,
        BrightRoofs(),
        progress=lambda count, total: done.append(count),
    )
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mask", "m.png"], "--mask"),
        (["--prob", "p.jpg"], "--prob"),
        (["--preview", "p.tif"], "--preview"),
        (["-o", "o.shp"], "*.gpkg"),
    ],
)
def test_suffixes_that_cannot_be_written_are_refused(tmp_path, options, message):
    scene = town(tmp_path / "drone.tif")
    given = [options[0], tmp_path / options[1]]
    result = call("infer", scene, "-o", tmp_path / "o.gpkg", *given)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "name it" in result.stderr


def test_a_vrts_sources_are_inputs_too(tmp_path):
    source = town(tmp_path / "part.tif")
    vrt = tmp_path / "scene.vrt"
    rasterio.shutil.copy(source, vrt, driver="VRT")
    before = source.read_bytes()
    given = ["-o", tmp_path / "o.gpkg", "--mask", source, "--overwrite"]
    result = call("infer", vrt, *given)
    assert result.exit_code == 2
    assert "is an input" in result.stderr
    assert source.read_bytes() == before
