# SPDX-License-Identifier: Apache-2.0
"""Which cells learn which object."""

import pytest
import torch

from fieldfare.remote_sensing.detection.training.assignment import assign

GRID = (
    torch.stack(
        torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="xy"), -1
    ).reshape(-1, 2)
    * 8.0
)
"""Centres of 8 x 8 cells of 8 pixels."""


def around(centres, half=10.0):
    return torch.cat((centres - half, centres + half), -1)


def chosen(truth, *, boxes=None, scores=None, best=10):
    boxes = around(GRID) if boxes is None else boxes
    scores = torch.full((64, 1), 0.5) if scores is None else scores
    classes = torch.zeros(len(truth), dtype=torch.int64)
    return assign(scores, boxes, GRID, truth, classes, best=best)


def test_only_cells_within_the_box_answer_for_an_object():
    truth = torch.tensor([[8.0, 8.0, 32.0, 24.0]])
    found = chosen(truth)
    x, y = GRID[found.objects >= 0].T
    assert len(x) == 6  # 3 x 2 cells
    assert ((x > 8) & (x < 32) & (y > 8) & (y < 24)).all()


def test_the_best_cells_by_score_and_overlap_are_taken_and_the_best_has_its_overlap_as_target():
    truth = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    found = chosen(truth, best=1)
    (index,) = (found.objects >= 0).nonzero()[:, 0].tolist()
    assert GRID[index].tolist() == [20.0, 20.0]
    assert found.scores[index] == pytest.approx(1.0, abs=1e-4)


def test_a_cell_between_two_objects_goes_to_the_one_it_overlaps_more():
    truth = torch.tensor([[8.0, 8.0, 32.0, 32.0], [16.0, 16.0, 40.0, 40.0]])
    boxes = around(GRID, 12.0)
    found = chosen(truth, boxes=boxes)
    middle = (torch.tensor([20.0, 20.0]) == GRID).all(1)
    assert found.objects[middle].item() == 0
    assert set(found.objects.unique().tolist()) == {-1, 0, 1}


def test_an_object_smaller_than_a_cell_gets_the_nearest_one():
    truth = torch.tensor([[16.5, 16.5, 18.0, 18.0]])
    found = chosen(truth)
    assert GRID[found.objects >= 0].tolist() == [[20.0, 20.0]]


def test_where_nothing_overlaps_yet_cells_are_taken_all_the_same():
    truth = torch.tensor([[8.0, 8.0, 32.0, 32.0]])
    found = chosen(truth, boxes=torch.full((64, 4), -100.0))
    assert (found.objects >= 0).sum() == 9
    assert (found.scores == 0).all()


def test_no_object_no_cell():
    found = chosen(torch.zeros(0, 4))
    assert (found.objects == -1).all()
    assert (found.scores == 0).all()


def test_the_order_of_the_objects_does_not_matter():
    torch.manual_seed(0)
    middles = torch.rand(6, 2) * 64
    truth, boxes, scores = (
        around(middles, 9.0),
        around(GRID + torch.randn(64, 2)),
        torch.rand(64, 1),
    )
    order = torch.randperm(6)
    one = chosen(truth, boxes=boxes, scores=scores)
    other = chosen(truth[order], boxes=boxes, scores=scores)
    assert torch.equal(one.scores, other.scores)
    kept = other.objects >= 0
    assert torch.equal(one.objects[kept], order[other.objects[kept]])
