# SPDX-License-Identifier: Apache-2.0
"""From probabilities on a grid to outlines with attributes."""

import subprocess
import sys

import numpy as np
import pandas.testing
import pytest
import rasterio
import shapely
from rasterio import Affine
from rasterio.windows import Window
from sample_rasters import write_raster
from scipy import ndimage

from fieldfare.remote_sensing.buildings.inference import footprints
from fieldfare.remote_sensing.buildings.inference.footprints import (
    FULL,
    MISSING,
    FootprintSettings,
    extract,
    orientation,
)
from fieldfare.remote_sensing.buildings.inference.splitting import split

GSD = 0.25
GRID = Affine(GSD, 0, 500_000, 0, -GSD, 4_000_000)
RAW = FootprintSettings(regularise=False)


def raster(path, levels: np.ndarray, **profile):
    """(bands, h, w) or (h, w) probabilities 0 to 1 as a probability raster; nan is missing."""
    levels = np.atleast_3d(levels.T).T
    stored = np.where(np.isnan(levels), MISSING, np.nan_to_num(levels) * FULL).astype(np.uint8)
    profile = {"crs": "EPSG:32636", "transform": GRID, "nodata": MISSING} | profile
    return write_raster(path, stored, **profile)


def ground(*boxes: tuple[int, int, int, int], size=(120, 130), value=0.9) -> np.ndarray:
    """Probabilities with rectangles (row, column, height, width)."""
    image = np.full(size, 0.1)
    for row, column, height, width in boxes:
        image[row : row + height, column : column + width] = value
    return image


def test_attributes_are_metric_and_ordered_from_the_top(tmp_path):
    image = ground((60, 20, 16, 40), (10, 50, 24, 12), (0, 5, 10, 10))
    found = extract(raster(tmp_path / "p.tif", image), RAW)
    assert found["id"].tolist() == [1, 2, 3]
    assert found["area_m2"].tolist() == pytest.approx([6.25, 18, 40], rel=1e-3)
    assert found["perimeter_m"].tolist() == pytest.approx([10, 18, 28], rel=1e-3)
    assert found["confidence"].tolist() == pytest.approx([0.9] * 3, abs=0.005)
    assert found["touches_edge"].tolist() == [True, False, False]
    assert found["orientation"].tolist()[1:] == pytest.approx([0, 90], abs=0.5)
    assert found.crs == "EPSG:32636"
    top = found.geometry[1].bounds
    assert top == pytest.approx((500_012.5, 3_999_991.5, 500_015.5, 3_999_997.5))


@pytest.mark.parametrize(("angle", "bearing"), [(0, 90), (30, 60), (90, 0), (120, 150)])
def test_orientation_is_a_bearing_of_the_longer_side(angle, bearing):
    house = shapely.affinity.rotate(shapely.box(0, 0, 12, 5), angle)
    assert orientation(np.array([house]))[0] == pytest.approx(bearing, abs=1e-6)


def test_missing_data_cuts_houses_and_is_said_so(tmp_path):
    image = ground((20, 20, 20, 20), (60, 60, 20, 20))
    image[:, :30] = np.nan
    found = extract(raster(tmp_path / "p.tif", image), RAW)
    assert found["touches_edge"].tolist() == [True, False]
    assert found["area_m2"].tolist() == pytest.approx([200 * GSD**2, 400 * GSD**2], rel=1e-3)


def test_small_houses_are_left_out_and_small_holes_filled(tmp_path):
    image = ground((10, 10, 40, 40), (80, 80, 6, 6))
    image[20:26, 20:26] = 0.1  # 2.25 m2
    image[32:44, 32:44] = 0.1  # 9 m2
    (house,) = extract(raster(tmp_path / "p.tif", image), RAW).geometry
    assert house.area == pytest.approx(100 - 9, rel=1e-3)
    assert len(house.interiors) == 1
    many = extract(tmp_path / "p.tif", FootprintSettings(regularise=False, min_area=1, max_hole=1))
    assert len(many) == 2
    assert len(many.geometry[0].interiors) == 2


def test_touching_roofs_are_parted_along_the_edges_and_share_the_wall(tmp_path):
    building = ground((20, 10, 30, 80))
    edge = np.zeros_like(building)
    edge[20:50, 10:90] = 1
    edge[22:48, 12:48] = edge[22:48, 52:88] = 0  # two roofs with a joint of four pixels
    path = raster(tmp_path / "p.tif", np.stack([building, edge]))
    for settings in (RAW, FootprintSettings()):
        found = extract(path, settings)
        assert len(found) == 2
        one, other = found.geometry
        assert one.intersection(other).length == pytest.approx(30 * GSD, rel=0.01)
        assert one.area == pytest.approx(other.area, rel=0.12)
        assert found["area_m2"].sum() == pytest.approx(30 * 80 * GSD**2, rel=0.01)
    whole = extract(path, FootprintSettings(split=False))
    assert len(whole) == 1


def test_a_part_too_small_to_be_a_building_is_not_parted():
    inside = np.ones((20, 40), bool)
    edge = np.zeros((20, 40))
    edge[:, 34:36] = 1
    assert split(inside, edge, least=30).max() == 2
    assert split(inside, edge, least=200).max() == 1


def test_every_pixel_of_a_region_goes_to_one_part():
    rng = np.random.default_rng(0)
    inside, edge = np.ones((50, 60), bool), rng.random((50, 60))
    edge[:, ::12] = 1
    edge[:, 1:11] *= 0.4
    parts = split(inside, edge, least=20)
    assert sorted(np.unique(parts)) == list(range(1, parts.max() + 1))
    assert parts.max() >= 4
    assert np.bincount(parts.ravel())[1:].min() >= 20


def test_a_small_part_goes_over_the_lowest_edge():
    inside, edge = np.ones((30, 70), bool), np.zeros((30, 70))
    edge[:, 30] = 0.7
    edge[:, 40] = 0.9
    parts = split(inside, edge, least=400)  # the part between the two has about 300 pixels
    assert parts.max() == 2
    assert (parts[:, 31:40] == parts[0, 0]).all()
    assert (parts[:, 42:] == parts[0, -1]).all()


def test_a_hundred_small_parts_of_random_edges_are_connected_and_large_enough():
    rng = np.random.default_rng(1)
    edge = ndimage.gaussian_filter(rng.random((260, 260)), 3)
    edge = np.clip((edge - edge.mean()) / edge.std() * 0.25 + 0.55, 0, 1)
    inside = edge < edge.max()
    inside, _ = ndimage.label(inside)
    parts = split(inside == 1, edge, least=150)
    assert parts.max() > 40
    assert ((parts > 0) == (inside == 1)).all()
    assert np.bincount(parts.ravel())[1:].min() >= 150
    for number in range(1, parts.max() + 1):
        assert ndimage.label(parts == number)[1] == 1


def test_a_region_too_large_to_part_is_measured_strip_by_strip(tmp_path, monkeypatch):
    rng = np.random.default_rng(6)
    image = np.clip(ndimage.gaussian_filter(rng.normal(0.42, 1.2, (200, 210)), 3), 0, 1)
    image[90:94, 60:90] = np.nan
    path = raster(tmp_path / "p.tif", np.stack([image, np.zeros_like(image)]))
    settings = FootprintSettings(min_area=2, regularise=False)
    whole = extract(path, settings)
    monkeypatch.setattr(footprints, "LARGEST", 0)
    monkeypatch.setattr(footprints, "STRIP_PIXELS", 400)
    strips = extract(path, settings)
    assert len(whole) > 15
    assert 0 < whole["touches_edge"].sum() < len(whole)
    pandas.testing.assert_frame_equal(whole, strips)


@pytest.mark.parametrize("pixels", [footprints.STRIP_PIXELS, 100])
@pytest.mark.parametrize("bands", [1, 2])
def test_what_stands_in_a_courtyard_counts_for_itself_alone(tmp_path, monkeypatch, pixels, bands):
    monkeypatch.setattr(footprints, "STRIP_PIXELS", pixels)
    image = ground((20, 30, 40, 50))
    image[26:54, 36:74] = 0.1
    image[30:50, 40:70] = 0.6
    image[60, 80] = 0.7  # touches the frame at its corner: another one, too small
    path = raster(tmp_path / "p.tif", np.stack([image, np.zeros_like(image)][:bands]))
    found = extract(path, FootprintSettings(regularise=False, max_hole=0))
    assert found["confidence"].tolist() == [0.9, 0.6]
    areas = (40 * 50 - 28 * 38, 20 * 30)
    assert found["area_m2"].tolist() == pytest.approx([n * GSD**2 for n in areas], rel=1e-3)
    assert not found["touches_edge"].any()


def test_without_crs_gsd_gives_the_metres(tmp_path):
    image = ground((20, 30, 10, 20))
    path = raster(tmp_path / "p.tif", image, crs=None, transform=Affine.identity())
    (row,) = extract(path, RAW, gsd=0.5).itertuples()
    assert row.area_m2 == pytest.approx(200 * 0.25)
    assert row.geometry.bounds == (30, 20, 50, 30)
    with pytest.raises(ValueError, match="gsd"):
        extract(path, RAW)


def test_without_crs_bearings_are_those_of_the_picture(tmp_path):
    rows, columns = np.mgrid[:120, :130]
    rising = np.abs(rows + columns - 120) < 8  # from the bottom left to the top right
    image = np.where(rising & (rows > 30) & (rows < 90), 0.9, 0.1)
    path = raster(tmp_path / "p.tif", image, crs=None, transform=Affine.identity())
    for settings in (RAW, FootprintSettings()):
        (row,) = extract(path, settings, gsd=0.5).itertuples()
        assert row.orientation == pytest.approx(45, abs=2)
        assert row.geometry.bounds == pytest.approx((24, 30, 98, 91), abs=8)


def test_a_turned_grid_keeps_areas(tmp_path):
    turned = Affine.translation(500_000, 4_000_000) * Affine.rotation(25) * Affine.scale(GSD, -GSD)
    found = extract(raster(tmp_path / "p.tif", ground((20, 30, 24, 40)), transform=turned), RAW)
    assert found["area_m2"].tolist() == pytest.approx([60], rel=1e-3)


def test_no_building_gives_an_empty_frame_with_all_columns(tmp_path):
    found = extract(raster(tmp_path / "p.tif", ground()), FootprintSettings())
    assert found.empty
    assert list(found.columns) == [
        *("id", "area_m2", "perimeter_m", "confidence", "orientation", "touches_edge", "geometry")
    ]


def test_polygons_do_not_depend_on_how_the_raster_is_tiled(tmp_path):
    rng = np.random.default_rng(3)
    image = np.clip(rng.normal(0.45, 0.2, (300, 310)), 0, 1)
    tiled = raster(tmp_path / "a.tif", image, tiled=True, blockxsize=64, blockysize=64)
    strips = raster(tmp_path / "b.tif", image)
    settings = FootprintSettings(min_area=0.5)
    one, other = extract(tiled, settings), extract(strips, settings)
    assert len(one) == len(other) > 20
    assert one.geometry.geom_equals(other.geometry).all()


@pytest.mark.slow
@pytest.mark.parametrize("joined", [False, True])
def test_memory_does_not_grow_with_the_raster(tmp_path, joined):
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from fieldfare.remote_sensing.buildings.inference import footprints\n"
        "found = footprints.extract(Path(sys.argv[1]), footprints.FootprintSettings())\n"
        "print(len(found))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = []
    for side in (512, 12_000):
        path = tmp_path / f"{side}.tif"
        profile = {"driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint8"}
        profile |= {"tiled": True, "sparse_ok": True, "crs": "EPSG:32636", "transform": GRID}
        with rasterio.open(path, "w", **profile) as sink:
            if joined:  # one region from corner to corner
                sink.write(np.full((1, 40, side), FULL, np.uint8), window=Window(0, 0, side, 40))
                sink.write(np.full((1, side, 40), FULL, np.uint8), window=Window(0, 0, 40, side))
            else:
                house = np.full((1, 40, 60), FULL, np.uint8)
                sink.write(house, window=Window(side // 2, side // 2, 60, 40))
        run = [sys.executable, "-c", code, str(path)]
        answer = subprocess.run(run, capture_output=True, text=True, check=True)
        count, peak = map(int, answer.stdout.split())
        assert count == 1
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 120  # MB, where the raster has 144
