# SPDX-License-Identifier: Apache-2.0
"""Squared outlines: corners where houses have them, walls still shared, nothing strays."""

import itertools
import math

import numpy as np
import pytest
import rasterio.features
import shapely
from rasterio import Affine

from fieldfare.remote_sensing.buildings.inference.regularise import (
    MIN_IOU,
    dominant_direction,
    regularise,
)
from fieldfare.remote_sensing.buildings.inference.regularise import _faithful as faithful
from fieldfare.remote_sensing.buildings.inference.vectors import overlapping

GSD = 0.15
TOLERANCE = 2.5 * GSD
RECTANGLE = shapely.box(0, 0, 14, 9)
L_SHAPE = shapely.Polygon([(0, 0), (16, 0), (16, 6), (9, 6), (9, 14), (0, 14)])


def drawn(*polygons: shapely.Polygon, angle: float = 0.0) -> np.ndarray:
    """Polygons turned, drawn on pixels and outlined again, as staircases, in their order."""
    turned = [shapely.affinity.rotate(p, angle, origin=(0, 0)) for p in polygons]
    left, bottom, right, top = shapely.total_bounds(turned)
    shape = (math.ceil((top - bottom) / GSD) + 4, math.ceil((right - left) / GSD) + 4)
    grid = Affine(GSD, 0, left - 2 * GSD, 0, -GSD, top + 2 * GSD)
    numbers = rasterio.features.rasterize(
        [(p, i + 1) for i, p in enumerate(turned)], out_shape=shape, transform=grid, dtype="int32"
    )
    found = {}
    for geometry, number in rasterio.features.shapes(numbers, mask=numbers > 0, transform=grid):
        found[int(number)] = shapely.geometry.shape(geometry)
    return np.array([found[i + 1] for i in range(len(polygons))], object)


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    shared = shapely.area(shapely.intersection(one, other))
    return shared / (shapely.area(one) + shapely.area(other) - shared)


@pytest.mark.parametrize("angle", [0, 7, 23, 45, 61, 88])
@pytest.mark.parametrize(("shape", "corners"), [(RECTANGLE, 4), (L_SHAPE, 6)])
def test_a_house_drawn_on_pixels_gets_its_corners_back(shape, corners, angle):
    raw = drawn(shape, angle=angle)
    (found,) = regularise(raw, TOLERANCE)
    assert len(found.exterior.coords) - 1 == corners
    wanted = shapely.affinity.rotate(shape, angle, origin=(0, 0))
    assert found.hausdorff_distance(wanted) < 3 * GSD
    assert iou(np.array([found]), np.array([wanted]))[0] > 0.96


@pytest.mark.parametrize("angle", [3.0, 30.0, 72.5])
def test_the_dominant_direction_is_that_of_the_walls(angle):
    raw = drawn(L_SHAPE, angle=angle)
    found = math.degrees(dominant_direction(shapely.simplify(raw, TOLERANCE))) % 90
    assert found == pytest.approx(angle, abs=1.0)


@pytest.mark.parametrize("angle", [0, 17, 40])
def test_houses_in_a_row_go_on_sharing_their_walls(angle):
    row = [shapely.box(8 * i, 0, 8 * (i + 1), 10 + i % 2) for i in range(4)]
    raw = drawn(*row, angle=angle)
    found = regularise(raw, TOLERANCE)
    assert shapely.is_valid(found).all()
    assert not overlapping(found)
    for one, other in itertools.pairwise(found):
        assert one.intersection(other).length > 9
    union = shapely.union_all(found)
    assert union.geom_type == "Polygon"
    assert not union.interiors


def test_a_turned_block_of_houses_is_squared_as_one():
    block = [shapely.box(8 * i, 9 * j, 8 * i + 8, 9 * j + 9) for i in range(9) for j in range(5)]
    raw = drawn(*block, angle=20)
    found = regularise(raw, TOLERANCE)
    wanted = np.array([shapely.affinity.rotate(house, 20, origin=(0, 0)) for house in block])
    assert not overlapping(found)
    assert iou(found, wanted).min() > 0.9
    corners = shapely.get_num_coordinates(found) - 1
    assert np.median(corners) <= 5  # four, and one where two houses' shared corners came apart
    assert corners.max() <= 8
    union = shapely.union_all(found)
    assert union.geom_type == "Polygon"
    assert not union.interiors


def test_houses_along_a_bend_keep_their_walls_and_their_own_directions():
    rays = [(math.cos(a), math.sin(a)) for a in np.radians(np.arange(0, 93, 3))]
    bend = [
        shapely.Polygon([(r * x, r * y) for r, (x, y) in ((60, a), (69, a), (69, b), (60, b))])
        for a, b in itertools.pairwise(rays)
    ]
    raw = drawn(*bend)
    found = regularise(raw, TOLERANCE)
    assert not overlapping(found)
    assert iou(found, np.array(bend)).min() > 0.9
    assert (shapely.get_num_coordinates(found) - 1).mean() < 5
    for one, other in itertools.pairwise(found):
        assert one.intersection(other).length > 8


def test_one_odd_house_leaves_the_walls_of_the_others_straight():
    sliver = shapely.box(8, -3, 8.3, 10)  # two pixels wide: any squaring takes it apart
    raw = drawn(shapely.box(0, 0, 8, 10), sliver, shapely.box(8.3, 0, 16, 10), angle=12)
    found = regularise(raw, TOLERANCE)
    assert (iou(found, raw) >= MIN_IOU).all()
    assert not overlapping(found)
    before, after = (shapely.get_num_coordinates(p)[[0, 2]].sum() for p in (raw, found))
    assert after < before / 3


def test_a_cut_corner_is_mended():
    chamfered = shapely.Polygon([(0, 0), (12, 0), (12, 8.2), (11.2, 9), (0, 9)])
    (found,) = regularise(np.array([chamfered]), TOLERANCE)
    assert found.equals(shapely.box(0, 0, 12, 9))


@pytest.mark.parametrize(
    "shape",
    [
        shapely.Point(0, 0).buffer(6),
        shapely.Polygon([(0, 0), (20, 0), (10, 9)]),
        shapely.Polygon([(0, 0), (0.4, 0), (0.4, 0.3)]),
        RECTANGLE.difference(shapely.box(4, 3, 9, 6)),
    ],
)
def test_whatever_the_shape_it_stays_close_to_its_outline(shape):
    raw = np.array([shape], object)
    found = regularise(raw, TOLERANCE)
    assert shapely.is_valid(found).all()
    assert iou(found, raw)[0] >= MIN_IOU


def test_random_blobs_keep_order_validity_iou_and_no_overlap():
    rng = np.random.default_rng(5)
    noise = rng.random((140, 150))
    smooth = sum(np.roll(noise, (i, j), (0, 1)) for i in range(-3, 4) for j in range(-3, 4))
    mask = (smooth > np.quantile(smooth, 0.6)).astype(np.uint8)
    labels = mask * (1 + (np.arange(150)[None] // 20) % 2).astype(np.uint8)  # touching strips
    grid = Affine.scale(GSD)
    shapes = rasterio.features.shapes(labels, mask=labels > 0, transform=grid)
    raw = np.array([shapely.geometry.shape(geometry) for geometry, _ in shapes], object)
    assert len(raw) > 50
    found = regularise(raw, TOLERANCE)
    assert shapely.is_valid(found).all()
    assert (iou(found, raw) >= MIN_IOU - 1e-9).all()
    assert not overlapping(found)
    large = shapely.area(raw) > 1
    kept = [a.equals(b) for a, b in zip(found[large], raw[large], strict=True)]
    assert len(kept) > 20
    assert sum(kept) < len(kept) / 2  # even of such shapes most can be squared


def test_a_row_of_houses_keeps_its_courtyard():
    frame = shapely.box(0, 0, 20, 16).difference(shapely.box(6, 5, 14, 11))
    raw = drawn(frame, shapely.box(20, 0, 28, 16), angle=30)
    one, other = regularise(raw, TOLERANCE)
    assert [shapely.get_num_interior_rings(p) for p in (one, other)] == [1, 0]
    assert len(one.interiors[0].coords) - 1 == 4
    assert one.intersection(other).length > 15
    wanted = shapely.affinity.rotate(frame, 30, origin=(0, 0))
    assert iou(np.array([one]), np.array([wanted]))[0] > 0.96


def test_polygons_that_lose_all_their_corners_stay_as_they_were():
    steps = [shapely.box(0.1 * i, 0, 0.1 * (i + 1), 0.1) for i in range(3)]  # one wall, three times
    assert all(a.equals(b) for a, b in zip(regularise(np.array(steps), 5.0), steps, strict=True))


def test_houses_that_touch_at_a_corner_are_squared_each_for_itself():
    one, other = shapely.box(0, 0, 10, 8), shapely.box(10, 8, 19, 17)
    raw = drawn(one, other)
    together = regularise(raw, TOLERANCE)
    alone = [regularise(raw[[i]], TOLERANCE)[0] for i in range(2)]
    assert all(a.equals_exact(b, 0) for a, b in zip(together, alone, strict=True))


def test_many_at_once_keep_as_much_iou_as_each_alone_even_just_at_the_limit():
    houses = np.random.default_rng(2).uniform((1e5, 1e5, 5), (1e6, 4e6, 20), (40, 3))
    raw = np.array([shapely.box(x, y, x + side, y + 9) for x, y, side in houses])
    cut = np.array([shapely.box(x, y, x + MIN_IOU * side, y + 9) for x, y, side in houses])
    found = faithful(cut, raw)
    assert found.tolist() == [bool(iou(cut[[i]], raw[[i]])[0] >= MIN_IOU) for i in range(40)]
    assert 0 < found.sum() < 40
    assert not faithful(shapely.buffer(cut, -0.001, join_style="mitre"), raw).any()


def test_nothing_in_nothing_out():
    assert len(regularise(np.empty(0, object), 1.0)) == 0
