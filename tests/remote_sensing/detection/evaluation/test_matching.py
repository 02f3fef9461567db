# SPDX-License-Identifier: Apache-2.0
"""Pairs of detections and objects."""

import math

import numpy as np
import pytest

from fieldfare.remote_sensing.detection.evaluation.matching import (
    Counts,
    counts_of,
    pair_boxes,
    pair_points,
)


def test_a_detection_within_reach_is_right_and_each_object_has_one():
    true = np.array([(0.0, 0.0), (20.0, 0.0)])
    found = np.array([(3.0, 4.0), (1.0, 0.0), (26.1, 0.0)])
    pairs = pair_points(found, true, 6.0)
    assert pairs[0] in (0, 1)
    assert pairs[1] == -1
    assert counts_of(pairs, 3) == Counts(right=1, wrong=2, missed=1)


def test_as_many_pairs_as_there_can_be():
    true = np.array([(0.0, 0.0), (5.0, 0.0)])
    found = np.array([(2.5, 0.0), (-4.0, 0.0)])  # the first is nearer to both, the second to one
    assert counts_of(pair_points(found, true, 5.0), 2).right == 2


def test_the_order_changes_no_count():
    rng = np.random.default_rng(0)
    true, found = rng.uniform(0, 60, (50, 2)), rng.uniform(0, 60, (70, 2))
    counts = counts_of(pair_points(found, true, 6.0), len(found))
    for _ in range(3):
        mixed = counts_of(
            pair_points(rng.permutation(found), rng.permutation(true), 6.0), len(found)
        )
        assert mixed == counts


def test_boxes_pair_by_their_overlap():
    true = np.array([(0.0, 0.0, 10.0, 10.0)])
    found = np.array([(0.0, 0.0, 10.0, 4.0), (0.0, 2.0, 10.0, 12.0)])
    assert pair_boxes(found, true, 0.5).tolist() == [1]
    assert pair_boxes(found[:1], true, 0.5).tolist() == [-1]


@pytest.mark.parametrize(("found", "true"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_found_and_nothing_there(found, true):
    pairs = pair_points(np.zeros((found, 2)), np.full((true, 2), 99.0), 6.0)
    counts = counts_of(pairs, found)
    assert (counts.right, counts.wrong, counts.missed) == (0, found, true)
    assert math.isnan(counts.f1) == (found == true == 0)


def test_scores_by_hand():
    counts = Counts(right=6, wrong=2, missed=4)
    assert (counts.precision, counts.recall, counts.f1) == (0.75, 0.6, pytest.approx(2 / 3))
    assert counts + Counts(1, 1, 1) == Counts(7, 3, 5)
