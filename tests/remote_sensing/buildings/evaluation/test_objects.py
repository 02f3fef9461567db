# SPDX-License-Identifier: Apache-2.0
"""Object metrics: matching, average precision and PoLiS against hand calculations."""

import math

import numpy as np
import pytest
import shapely

from fieldfare.remote_sensing.buildings.evaluation import objects


def boxes(*corners: tuple[float, float, float, float]) -> np.ndarray:
    return np.array([shapely.box(*corner) for corner in corners], object)


NOTHING = np.empty(0, object)
STREET = boxes(*((20 * i, 0, 20 * i + 10, 5 + i) for i in range(8)))


def shaken(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    offsets = generator.normal(0, 1.5, (len(STREET), 2))
    moved = [
        shapely.transform(polygon, lambda xy, by=by: xy + by)
        for polygon, by in zip(STREET, offsets, strict=True)
    ]
    return np.array(moved, object), generator.uniform(size=len(STREET))


def test_iou_of_pairs() -> None:
    pairs = objects.overlaps(boxes((0, 0, 2, 2), (9, 9, 10, 10)), boxes((1, 0, 3, 2), (2, 2, 4, 4)))
    assert (pairs.predicted.tolist(), pairs.truth.tolist()) == ([0], [0])
    assert pairs.iou[0] == pytest.approx(2 / 6)


def test_a_building_is_found_once() -> None:
    twice = boxes((0, 0, 10, 10), (0, 0, 10, 9))
    tally = objects.object_scores(twice, boxes((0, 0, 10, 10)), np.array([0.5, 0.9]))
    assert (tally.tp, tally.fp, tally.fn) == (1, 1, 0)
    assert tally.right50.tolist() == [False, True]  # the more confident one has it


def test_without_scores_the_better_overlap_has_it() -> None:
    twice = boxes((0, 0, 10, 9), (0, 0, 10, 10))
    assert objects.match(twice, boxes((0, 0, 10, 10))).truth.tolist() == [-1, 0]


def test_a_prediction_takes_the_best_building_that_is_free() -> None:
    truth = boxes((0, 0, 10, 10), (0, 0, 10, 8))
    found = boxes((0, 0, 10, 10), (0, 0, 10, 9.5))
    matches = objects.match(found, truth, np.array([0.9, 0.8]))
    assert matches.truth.tolist() == [0, 1]
    assert matches.predicted.tolist() == [0, 1]


def test_iou_of_exactly_the_threshold_is_a_match() -> None:
    assert objects.match(boxes((0, 0, 1, 1)), boxes((0, 0, 2, 1))).truth.tolist() == [0]
    assert objects.match(boxes((0, 0, 1, 1)), boxes((0, 0, 2.01, 1))).truth.tolist() == [-1]


@pytest.mark.parametrize("seed", range(5))
def test_order_of_polygons_does_not_matter(seed: int) -> None:
    found, scores = shaken(seed)
    order = np.random.default_rng(seed).permutation(len(found))
    straight = objects.object_scores(found, STREET, scores).numbers()
    mixed = objects.object_scores(found[order], STREET[::-1], scores[order]).numbers()
    assert mixed == pytest.approx(straight, nan_ok=True)
    assert 0 < straight["tp"] < len(STREET) or straight["fn"] == 0


def test_perfect_prediction() -> None:
    numbers = objects.object_scores(STREET, STREET, np.linspace(0, 1, 8)).numbers()
    assert {numbers[k] for k in ("object_f1", "ap50", "ap75")} == {1.0}
    assert numbers["polis"] == numbers["count_error"] == numbers["fp"] == numbers["fn"] == 0


def test_swapping_sides_swaps_precision_and_recall() -> None:
    found, _ = shaken(3)
    forth = objects.object_scores(found[:5], STREET).numbers()
    back = objects.object_scores(STREET, found[:5]).numbers()
    assert forth["object_precision"] == back["object_recall"]
    assert forth["object_f1"] == back["object_f1"]
    assert forth["polis"] == pytest.approx(back["polis"])
    assert forth["count_error"] == -3 / 8


@pytest.mark.parametrize(("found", "wanted"), [(0, 0), (0, 3), (3, 0)])
def test_empty_sides(found: int, wanted: int) -> None:
    numbers = objects.object_scores(STREET[:found], STREET[:wanted], np.ones(found)).numbers()
    assert (numbers["tp"], numbers["fp"], numbers["fn"]) == (0, found, wanted)
    assert math.isnan(numbers["polis"])
    assert math.isnan(numbers["count_error"]) == (wanted == 0)
    assert math.isnan(numbers["object_f1"]) == (found + wanted == 0)
    assert numbers["ap50"] == 0 if wanted else math.isnan(numbers["ap50"])


def test_small_buildings_are_left_out_on_both_sides() -> None:
    large, small = (0, 0, 10, 10), (20, 0, 21, 1)
    tally = objects.object_scores(boxes(large, small), boxes(large, small), min_area=1.5)
    assert (tally.tp, tally.fp, tally.fn) == (1, 0, 0)
    kept = objects.object_scores(boxes(large, small), boxes(large, small), min_area=1)
    assert kept.tp == 2
    empty = np.array([shapely.Polygon()], object)
    assert objects.object_scores(empty, empty).fp == 0


def test_average_precision_against_a_hand_calculation() -> None:
    # right, wrong, right of 4 true: precision 1 up to recall 1/4, 2/3 up to 1/2, then 0
    scores, right = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    expected = (26 * 1 + 25 * 2 / 3) / 101  # recalls 0 .. 0.25 and 0.26 .. 0.50
    assert objects.average_precision(scores, right, 4) == pytest.approx(expected)
    order = [2, 0, 1]
    assert objects.average_precision(scores[order], right[order], 4) == pytest.approx(expected)


def test_average_precision_takes_the_best_precision_from_a_recall_on() -> None:
    right = np.array([False, True, True])
    assert objects.average_precision(np.array([3.0, 2, 1]), right, 2) == pytest.approx(2 / 3)


def test_average_precision_without_scores_is_undefined() -> None:
    assert math.isnan(objects.object_scores(STREET, STREET).numbers()["ap50"])


def test_polis_against_a_hand_calculation() -> None:
    # The corners of the narrow one lie on the outline of the wide one; two of the wide one's
    # corners are 1 off.
    pair = boxes((0, 0, 4, 4)), boxes((0, 0, 5, 4))
    assert objects.polis(*pair) == pytest.approx([(0 + 2 / 4) / 2])
    triangle = np.array([shapely.Polygon([(0, 0), (4, 0), (0, 4)])], object)
    # (0, 0), (4, 0), (0, 4) lie on the square's outline; of its corners only (4, 4) is off the
    # triangle's, by the distance to its long side
    assert objects.polis(pair[0], triangle) == pytest.approx([(math.sqrt(8) / 4 + 0) / 2])


def test_polis_is_symmetric_and_scales() -> None:
    found, _ = shaken(1)
    there, back = objects.polis(found, STREET), objects.polis(STREET, found)
    np.testing.assert_allclose(there, back)
    tenfold = [shapely.transform(side, lambda xy: xy * 10) for side in (found, STREET)]
    np.testing.assert_allclose(objects.polis(*tenfold), 10 * there)


def test_polis_ignores_holes_and_takes_all_parts() -> None:
    hollow = np.array([shapely.difference(shapely.box(0, 0, 9, 9), shapely.box(3, 3, 6, 6))])
    assert objects.polis(hollow, boxes((0, 0, 9, 9)))[0] == 0
    two = np.array([shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 0, 6, 1)])])
    assert objects.polis(two, two)[0] == 0
    assert objects.polis(two, boxes((0, 0, 1, 1)))[0] == pytest.approx((4 + 4 + 5 + 5) / 8 / 2)


def test_size_bins_by_hand() -> None:
    truth = boxes((0, 0, 4, 5), (10, 0, 14, 5), (20, 0, 30, 4))  # 20, 20, 40
    found = boxes((0, 0, 4, 5), (20, 0, 30, 4), (50, 0, 60, 3))  # 20, 40, 30
    small, middle, *rest = objects.object_scores(found, truth).by_size()
    assert (small.truths, small.predictions) == (2, 1)
    assert (small.recall, small.precision, small.f1) == (0.5, 1, pytest.approx(2 / 3))
    assert (middle.recall, middle.precision) == (1, 0.5)
    assert all(math.isnan(one.f1) for one in rest)


def test_sizes_cover_every_building_once() -> None:
    found, scores = shaken(2)
    tally = objects.object_scores(found, STREET, scores)
    bins = tally.by_size()
    assert sum(one.truths for one in bins) == len(STREET)
    assert sum(one.predictions for one in bins) == len(found)


def test_tallies_of_two_towns_add_up() -> None:
    found, scores = shaken(4)
    far = shapely.transform(np.concatenate([found, STREET]), lambda xy: xy + 1000)
    there, wanted = far[:8], far[8:]
    once = objects.object_scores(found, STREET, scores)
    other = objects.object_scores(there, wanted, scores[::-1])
    both = objects.object_scores(
        np.concatenate([found, there]),
        np.concatenate([STREET, wanted]),
        np.concatenate([scores, scores[::-1]]),
    )
    assert (once + other).numbers() == pytest.approx(both.numbers())
