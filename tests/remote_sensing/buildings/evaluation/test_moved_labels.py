# SPDX-License-Identifier: Apache-2.0
"""Labels that lie off what a model sees are moved back, and only where that is sure."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

from fieldfare.remote_sensing.buildings.evaluation.label_shift import Shift
from fieldfare.remote_sensing.buildings.evaluation.moved_labels import moved_labels

UTM = 32737


def houses(seed: int, count: int = 40) -> np.ndarray:
    """Of 6 to 12 m, about 20 m apart, in metres."""
    rng = np.random.default_rng(seed)
    corners = np.stack(np.meshgrid(np.arange(count // 8), np.arange(8)), -1).reshape(-1, 2) * 20.0
    corners += rng.uniform(0, 7, corners.shape)
    sides = rng.uniform(6, 12, corners.shape)
    return shapely.box(*corners.T, *(corners + sides).T)


def frame(polygons: np.ndarray, crs: int | None, origin: tuple[float, float]) -> gpd.GeoDataFrame:
    placed = shapely.transform(polygons, lambda xy: xy + origin)
    found = gpd.GeoDataFrame(geometry=placed, crs=crs and UTM)
    return found.to_crs(crs) if crs else found


@pytest.mark.parametrize("crs", [UTM, 3857, 4326])
def test_a_shift_of_all_labels_is_found_and_taken_back_in_any_crs(crs: int) -> None:
    origin = (256_000.0, 9_856_000.0)
    seen = frame(houses(1), crs, origin)
    labels = frame(shapely.transform(houses(1), lambda xy: xy + np.array([1.2, -0.9])), crs, origin)
    found = moved_labels(seen, labels)
    assert found is not None
    shift, moved = found
    assert (shift.dx_east_m, shift.dy_north_m) == pytest.approx((1.2, -0.9), abs=0.02)
    assert moved.crs == labels.crs
    off = shapely.distance(moved.to_crs(UTM).centroid.values, seen.to_crs(UTM).centroid.values)
    assert off.max() < 0.05


def test_without_crs_the_unit_of_the_coordinates_counts() -> None:
    seen = frame(shapely.transform(houses(2), lambda xy: xy / 0.5), None, (0, 0))
    labels = gpd.GeoDataFrame(geometry=seen.translate(3, 0))
    found = moved_labels(seen, labels, gsd=0.5)
    assert found is not None
    assert found[0].distance_m == pytest.approx(1.5, abs=0.02)
    assert np.allclose(found[1].total_bounds, seen.total_bounds, atol=0.05)
    assert moved_labels(seen, labels) is None  # nobody knows how long a unit is


def test_labels_in_place_or_scattered_stay() -> None:
    rng = np.random.default_rng(3)
    seen = frame(houses(3), UTM, (256_000.0, 9_856_000.0))
    assert moved_labels(seen, seen) is None
    jitter = rng.normal(0, 2, (len(seen), 2))
    scattered = seen.assign(
        geometry=[
            shapely.affinity.translate(house, *move)
            for house, move in zip(seen.geometry, jitter - np.median(jitter, axis=0), strict=True)
        ]
    )
    assert moved_labels(seen, scattered) is None
    assert moved_labels(seen[:3], seen[:3]) is None
    assert moved_labels(seen[:0], seen) is None


def test_a_shift_is_sure_where_it_is_larger_than_its_error() -> None:
    assert Shift(1.0, 0.0, 1.0, 90.0, 1.0, 1.0, 60).sure
    assert not Shift(1.0, 0.0, 1.0, 90.0, 3.0, 3.0, 60).sure
    assert not Shift(0.4, 0.0, 0.4, 90.0, 0.1, 0.1, 60).sure
    assert not Shift(1.0, 0.0, 1.0, 90.0, 0.1, 0.1, 19).sure
