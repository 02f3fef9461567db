# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression against torchvision's, and what it must not depend on."""

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from fieldfare.remote_sensing.detection.inference.predict import Detections
from fieldfare.remote_sensing.detection.inference.suppression import suppress


def random(count, seed=0, classes=2):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 100, (count, 2))
    boxes = np.column_stack((low, low + rng.uniform(4, 30, (count, 2))))
    return Detections(boxes, rng.random(count), rng.integers(0, classes, count))


@pytest.mark.parametrize("most", [0.2, 0.5, 0.7])
def test_it_keeps_what_torchvision_keeps(most):
    found = random(300)
    kept = batched_nms(
        torch.from_numpy(found.boxes),
        torch.from_numpy(found.scores),
        torch.from_numpy(found.classes),
        most,
    )
    expected = found.take(kept.numpy()).to_table()
    np.testing.assert_array_equal(suppress(found, most).to_table(), expected)


def test_the_order_does_not_matter_even_where_scores_are_equal():
    found = random(200, classes=1)
    tied = Detections(found.boxes, np.round(found.scores, 1), found.classes)
    first = suppress(tied, 0.3).to_table()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(tied))
        np.testing.assert_array_equal(suppress(tied.take(order), 0.3).to_table(), first)


def test_what_is_left_does_not_overlap_and_thinning_again_changes_nothing():
    once = suppress(random(300), 0.3)
    np.testing.assert_array_equal(suppress(once, 0.3).to_table(), once.to_table())
    assert len(once) < 300


def test_a_box_dropped_by_a_better_one_drops_no_third():
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], float)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, np.int64))
    assert suppress(found, 0.3).scores.tolist() == [0.9, 0.7]


def test_nothing_stays_nothing():
    assert len(suppress(random(0), 0.5)) == 0
