# SPDX-License-Identifier: Apache-2.0
"""Scenes: metres per pixel, the range of values, and reading at a model's pixel size."""

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from sample_rasters import write_raster
from sample_scenes import draw_boxes, mark_alpha, write_town

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.rasters.reading import Scene
from fieldfare.remote_sensing.scenes import ground
from fieldfare.remote_sensing.scenes.ground import (
    TOLERANCE,
    ground_size,
    open_at,
    value_range,
)


def size_of(path):
    with rasterio.open(path) as dataset:
        return ground_size(dataset)


def test_utm_pixels_have_their_nominal_size_but_for_the_scale_of_the_projection(tmp_path):
    x, y = size_of(write_town(tmp_path, gsd=0.15).image)
    assert x == pytest.approx(0.15, rel=1e-3)
    assert y == pytest.approx(0.15, rel=1e-3)


def test_web_mercator_pixels_at_latitude_60_have_half_their_nominal_size(tmp_path):
    town = write_town(tmp_path, crs="EPSG:3857", gsd=0.15, centre=(32.6, 60.0))
    assert town.transform.a == pytest.approx(0.3, rel=1e-3)
    # the sphere of the projection and the ellipsoid differ by up to a third of a percent
    assert size_of(town.image) == pytest.approx((0.15, 0.15), rel=5e-3)


def test_square_pixels_in_degrees_are_narrow_on_the_ground(tmp_path):
    side = 0.15 / 111_320
    image = write_raster(
        tmp_path / "degrees.tif",
        np.zeros((3, 20, 20), np.uint8),
        crs="EPSG:4326",
        transform=Affine(side, 0, 32.6, 0, -side, 60.0),
    )
    x, y = size_of(image)
    assert y == pytest.approx(0.15, rel=5e-3)
    assert x == pytest.approx(0.075, rel=5e-3)


def test_a_turned_raster_is_measured_along_its_own_rows(tmp_path):
    transform = Affine.translation(450_000, 38_000) * Affine.rotation(30) * Affine.scale(0.2, -0.4)
    image = write_raster(
        tmp_path / "turned.tif",
        np.zeros((1, 9, 9), np.uint8),
        crs="EPSG:32636",
        transform=transform,
    )
    assert size_of(image) == pytest.approx((0.2, 0.4), rel=1e-3)


def test_feet_are_told_from_metres(tmp_path):
    image = write_raster(
        tmp_path / "feet.tif",
        np.zeros((1, 9, 9), np.uint8),
        crs="EPSG:2263",  # New York, US survey feet
        transform=Affine(0.5, 0, 980_000, 0, -0.5, 200_000),
    )
    assert size_of(image) == pytest.approx((0.1524, 0.1524), rel=1e-3)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_crs_or_transform_the_size_is_unknown(tmp_path):
    assert size_of(write_town(tmp_path, crs=None).image) is None
    values = np.zeros((1, 5, 5), np.uint8)
    placed = Affine(2, 0, 5, 0, -2, 5)
    assert size_of(write_raster(tmp_path / "a.tif", values, crs=None, transform=placed)) is None
    bare = write_raster(tmp_path / "b.tif", values, crs="EPSG:32636", transform=Affine.identity())
    assert size_of(bare) is None


@pytest.mark.parametrize(
    "wkt",
    [
        'LOCAL_CS["site",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]',
        'ENGCRS["site",EDATUM["here"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
        'LENGTHUNIT["metre",1]]',
    ],
)
def test_a_crs_of_a_building_site_has_its_own_metres(tmp_path, wkt):
    image = write_raster(
        tmp_path / "site.tif",
        np.zeros((1, 5, 5), np.uint8),
        crs=wkt,
        transform=Affine(1, 0, 5, 0, -1, 5),
    )
    assert size_of(image) == (1, 1)


def range_of(path, text=None, window=None):
    with Scene(path, window=window) as scene:
        found = value_range(scene, text)
    return found.low, found.high


def test_bytes_keep_their_whole_range(tmp_path):
    assert range_of(write_town(tmp_path).image) == (0, 255)


def test_a_stated_range_is_taken(tmp_path):
    town = write_town(tmp_path, dtype="uint16")
    assert range_of(town.image, "10:4000") == (10, 4000)
    with pytest.raises(InputError, match="give LOW:HIGH"):
        range_of(town.image, "4000:10")


def test_wide_integers_are_stretched_between_percentiles_of_valid_pixels(tmp_path):
    """A quarter of nodata, and a tenth of a percent of glare, do not move the range."""
    values = np.random.default_rng(0).integers(1000, 3001, (3, 200, 200)).astype(np.uint16)
    values[:, :100, :100] = 0
    values[:, 150, :40] = 65_000
    image = write_raster(tmp_path / "wide.tif", values, nodata=0)
    known = values[:, ~draw_boxes((200, 200), [(0, 0, 100, 100)])]
    assert range_of(image) == pytest.approx(tuple(np.percentile(known, (0.5, 99.5))))
    assert range_of(image)[1] < 3001
    assert range_of(image)[0] > 999


def test_transparent_pixels_do_not_count_either(tmp_path):
    town = write_town(tmp_path, dtype="uint16", alpha=True, missing=(0, 0, 100, 256), houses=[])
    with rasterio.open(town.image, "r+") as dataset:
        values = dataset.read()
        values[:3, :100] = 60_000
        dataset.write(values)
    low, high = range_of(town.image)
    assert 52 * 16 <= low < high <= 68 * 16


def test_floats_within_0_and_1_keep_that_range_and_others_are_stretched(tmp_path):
    town = write_town(tmp_path, dtype="float32")
    assert range_of(town.image) == (0, 1)
    values = np.linspace(-2, 7, 3 * 50 * 60, dtype=np.float32).reshape(3, 50, 60)
    values[0, 3, 3] = np.nan
    values[1, 3, 3] = np.inf
    other = write_raster(tmp_path / "other.tif", values)
    wanted = np.percentile(values[np.isfinite(values)], (0.5, 99.5))
    assert range_of(other) == pytest.approx(tuple(wanted))


def test_a_flat_scene_has_a_range_that_can_be_divided_by(tmp_path):
    image = write_raster(tmp_path / "flat.tif", np.full((3, 20, 20), 500, np.uint16))
    assert range_of(image) == (500, 501)


def test_a_scene_without_a_valid_pixel_has_a_range_that_can_be_divided_by(tmp_path):
    image = write_raster(tmp_path / "void.tif", np.zeros((3, 20, 20), np.uint16), nodata=0)
    assert range_of(image) == (0, 1)


@pytest.mark.parametrize("shape", [(300, 5000), (2600, 2600), (1, 9000), (9000, 3), (1, 1)])
def test_a_large_scene_is_sampled_all_over(tmp_path, shape):
    """A ramp along both axes: its percentiles are found from a part of the pixels."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    ramp = 1000 + 20_000 * (rows / shape[0] + columns / shape[1])
    image = write_raster(tmp_path / "ramp.tif", ramp.astype(np.uint16)[None])
    low, high = range_of(image)
    wanted = np.percentile(ramp, (0.5, 99.5))
    assert low == pytest.approx(wanted[0], abs=1000)
    assert high == pytest.approx(wanted[1], abs=1000)


@pytest.mark.parametrize(
    "shape", [(3, 40), (40, 3), (1, 200), (200, 1), (5, 5), (4, 40), (9, 9), (1, 1)]
)
def test_few_blocks_are_read_whatever_the_shape(tmp_path, monkeypatch, shape):
    """Blocks of 2 pixels, at most 16 of them, none twice, spread over both axes."""
    monkeypatch.setattr(ground, "SAMPLED_BLOCKS", 16)
    monkeypatch.setattr(ground, "SIDE", 2)
    values = np.zeros((1, 2 * shape[0], 2 * shape[1]), np.uint16)
    image = write_raster(tmp_path / "thin.tif", values)
    read, places = Scene.read, []

    def noted(scene, rows, columns):
        places.append((rows[0] // 2, columns[0] // 2))
        return read(scene, rows, columns)

    monkeypatch.setattr(Scene, "read", noted)
    range_of(image)
    assert len(set(places)) == len(places) <= 16
    assert len(places) >= min(4, shape[0] * shape[1])
    for axis, length in enumerate(shape):
        seen = np.unique([place[axis] for place in places])
        gaps = np.diff(seen) if len(seen) > 1 else np.array([length])
        assert gaps.max() <= 2 * gaps.min()
        assert max(seen[0], length - 1 - seen[-1]) <= gaps.max()


def test_the_range_is_that_of_the_chosen_window(tmp_path):
    values = np.full((1, 60, 60), 9000, np.uint16)
    values[:, :20, :30] = np.arange(30)
    image = write_raster(tmp_path / "part.tif", values)
    low, high = range_of(image, window=rasterio.windows.Window(0, 0, 30, 20))
    assert (low, high) == (0, 29)


def read_all(scene):
    whole = ((0, scene.height), (0, scene.width))
    values = scene.read(*whole)
    return values, scene.valid(values, *whole)


@pytest.mark.parametrize("crs", ["EPSG:32636", "EPSG:3857", "EPSG:4326", None])
@pytest.mark.parametrize("gsd", [0.075, 0.12, 0.3, 0.5])
@pytest.mark.parametrize("latitude", [0.35, 60.0])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_resampling_leaves_the_roofs_where_they_are(tmp_path, crs, gsd, latitude):
    """Each roof's edges lie within half a pixel of where they were on the ground."""
    houses = [(20, 30, 48, 60), (120, 150, 64, 40)]
    town = write_town(
        tmp_path, size=(220, 250), crs=crs, gsd=0.15, houses=houses, centre=(32.6, latitude)
    )
    scene, size, resampled = open_at(town.image, gsd, None, 0.15 if crs is None else None)
    with scene:
        assert resampled
        assert size == pytest.approx((0.15, 0.15), rel=0.01)
        assert scene.bands == (1, 2, 3)
        values, valid = read_all(scene)
        assert valid.all()
        expected = tuple(round(n * s / gsd) for n, s in zip((220, 250), size[::-1], strict=True))
        assert values.shape[1:] == expected
        factors = (values.shape[1] / 220, values.shape[2] / 250)
        bright = values.mean(axis=0) > 130
        for r, c, h, w in houses:
            middle = round((r + h / 2) * factors[0]), round((c + w / 2) * factors[1])
            rows = np.flatnonzero(bright[:, middle[1]])
            rows = rows[(rows > (r - 10) * factors[0]) & (rows < (r + h + 10) * factors[0])]
            columns = np.flatnonzero(bright[middle[0]])
            columns = columns[
                (columns > (c - 9) * factors[1]) & (columns < (c + w + 9) * factors[1])
            ]
            assert rows[0] == pytest.approx(r * factors[0], abs=0.51)
            assert rows[-1] + 1 == pytest.approx((r + h) * factors[0], abs=0.51)
            assert columns[0] == pytest.approx(c * factors[1], abs=0.51)
            assert columns[-1] + 1 == pytest.approx((c + w) * factors[1], abs=0.51)
        if crs is not None:
            bounds = rasterio.transform.array_bounds(*values.shape[1:], scene.dataset.transform)
            wanted = rasterio.transform.array_bounds(220, 250, town.transform)
            assert bounds == pytest.approx(wanted, abs=1e-9 * abs(max(wanted)))


def test_making_coarser_averages(tmp_path):
    """A chess board of single pixels becomes even grey, not moire."""
    board = np.indices((120, 120)).sum(axis=0) % 2 * 200
    placed = Affine(0.1, 0, 5e5, 0, -0.1, 4e6)
    image = write_raster(tmp_path / "board.tif", board.astype(np.uint8)[None], transform=placed)
    scene, _, _ = open_at(image, 0.4, None, None)
    with scene:
        values = read_all(scene)[0][0, 2:-2, 2:-2]
    assert np.ptp(values) <= 10
    assert values.mean() == pytest.approx(100, abs=3)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(d, k) for d in ("uint8", "uint16", "float32") for k in ("nodata", "alpha")]
    + [("float32", "nan")],
)
@pytest.mark.parametrize("gsd", [0.1, 0.3])
def test_missing_parts_survive_resampling_and_do_not_bleed(tmp_path, dtype, kind, gsd):
    hole = (40, 60, 32, 44)
    nodata = {"nodata": 0, "alpha": None, "nan": np.nan}[kind]
    town = write_town(
        tmp_path,
        size=(120, 160),
        dtype=dtype,
        nodata=nodata,
        alpha=kind == "alpha",
        missing=hole,
        houses=[],
    )
    if kind == "alpha":  # what lies under a transparent pixel is no colour of the scene
        with rasterio.open(town.image, "r+") as dataset:
            values = dataset.read()
            values[:3, values[3] == 0] = 1 if dtype == "float32" else 255
            dataset.write(values)
    scene, _, resampled = open_at(town.image, gsd, None, None)
    with scene:
        assert resampled
        assert scene.bands == (1, 2, 3)
        values, valid = read_all(scene)
    factor = 0.15 / gsd
    inner, outer = (
        draw_boxes(
            valid.shape[1:],
            [((40 + m) * factor, (60 + m) * factor, (32 - 2 * m) * factor, (44 - 2 * m) * factor)],
        )
        for m in (1 / factor, -1 / factor)
    )
    assert inner.any()
    assert not valid[:, inner].any()
    assert valid[:, ~outer].all()
    unit = {"uint8": 1, "uint16": 16, "float32": 1 / 255}[dtype]
    assert values[valid].min() >= 51 * unit
    assert values[valid].max() <= 69 * unit


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_raster_without_holes_is_valid_after_resampling(tmp_path, dtype):
    town = write_town(tmp_path, size=(100, 90), dtype=dtype)
    scene, _, _ = open_at(town.image, 0.4, None, None)
    with scene:
        values, valid = read_all(scene)
        assert value_range(scene, None).high > value_range(scene, None).low
    assert valid.all()
    assert values.dtype == dtype


@pytest.mark.parametrize("share", [1 - 0.9 * TOLERANCE, 1, 1 + 0.9 * TOLERANCE])
def test_a_pixel_size_within_the_tolerance_is_left_alone(tmp_path, share):
    town = write_town(tmp_path, gsd=0.15)
    scene, size, resampled = open_at(town.image, 0.15 * share, None, None)
    with scene, rasterio.open(town.image) as plain:
        assert not resampled
        assert size == pytest.approx((0.15, 0.15), rel=1e-3)
        assert (read_all(scene)[0] == plain.read()).all()


def test_one_axis_beyond_the_tolerance_is_enough(tmp_path):
    side = 0.15 / 110_600
    image = write_raster(
        tmp_path / "degrees.tif",
        np.zeros((3, 40, 60), np.uint8),
        crs="EPSG:4326",
        transform=Affine(side * 2, 0, 32.6, 0, -side, 0.3),
    )
    scene, _, resampled = open_at(image, 0.15, None, None)
    with scene:
        assert resampled
        assert (scene.height, scene.width) == (40, 121)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_crs_the_model_size_is_assumed_unless_stated(tmp_path):
    town = write_town(tmp_path, crs=None)
    scene, size, resampled = open_at(town.image, 0.3, None, None)
    with scene:
        assert (size, resampled, scene.height) == (None, False, 256)
    scene, size, resampled = open_at(town.image, 0.3, None, 0.15)
    with scene:
        assert (size, resampled, scene.height) == ((0.15, 0.15), True, 128)


def test_a_stated_size_does_not_overrule_the_crs(tmp_path):
    town = write_town(tmp_path, gsd=0.15)
    scene, size, resampled = open_at(town.image, 0.15, None, 5.0)
    with scene:
        assert not resampled
        assert size == pytest.approx((0.15, 0.15), rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 7)])
@pytest.mark.parametrize("gsd", [0.04, 0.6, 40])
def test_the_smallest_rasters_stay_at_least_one_pixel(tmp_path, shape, gsd):
    town = write_town(tmp_path, size=shape, houses=[])
    scene, _, _ = open_at(town.image, gsd, None, None)
    with scene:
        values, valid = read_all(scene)
    assert values.shape == (3, *(max(1, round(side * 0.15 / gsd)) for side in shape))
    assert valid.all()
    assert 50 <= values.min() <= values.max() <= 70


def test_chosen_bands_are_resampled(tmp_path):
    town = write_town(tmp_path, bands=4, houses=[])
    mark_alpha(town.image, 3)  # near infrared, marked as alpha by mistake
    scene, _, _ = open_at(town.image, 0.3, (4, 1), None)
    with scene:
        values, valid = read_all(scene)
        assert scene.bands == (4, 1)
    assert valid.all()
    assert 50 <= values.min() <= values.max() <= 70


def test_what_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.tif: no such file"):
        open_at(tmp_path / "none.tif", 0.3, None, None)
    town = write_town(tmp_path)
    with pytest.raises(InputError, match="has no band 9"):
        open_at(town.image, 0.3, (9,), None)
