# SPDX-License-Identifier: Apache-2.0
"""What a detector is trained by."""

import pytest
import torch

from fieldfare.remote_sensing.detection.networks.head import BINS, SIDES, cells, flat
from fieldfare.remote_sensing.detection.networks.leyolo import STRIDES
from fieldfare.remote_sensing.detection.training.boxes import complete_iou, iou
from fieldfare.remote_sensing.detection.training.losses import (
    Gains,
    detection_loss,
    distribution_loss,
)

BOX = torch.tensor([[16.0, 16.0, 40.0, 40.0]])
"""Holds the centres of nine cells at stride 8, of one at 16 and of none at 32."""


def test_overlap_of_boxes_by_hand():
    other = torch.tensor([[28.0, 16.0, 52.0, 40.0]])
    assert iou(BOX, other).item() == pytest.approx(1 / 3)
    assert iou(BOX, BOX).item() == pytest.approx(1)
    assert iou(BOX, BOX + 100).item() == 0


def test_complete_iou_by_hand():
    other = BOX + torch.tensor([12.0, 0.0, 12.0, 0.0])
    apart = 12**2 / (36**2 + 24**2)
    assert complete_iou(BOX, other).item() == pytest.approx(1 / 3 - apart, abs=1e-6)
    assert complete_iou(BOX, BOX).item() == pytest.approx(1, abs=1e-6)
    assert complete_iou(BOX, BOX + 1000).item() < -0.9


def test_complete_iou_has_the_gradient_of_its_values():
    boxes = BOX.double().requires_grad_()
    target = torch.tensor([[20.0, 12.0, 50.0, 40.0]], dtype=torch.float64)
    weight_is_a_constant = complete_iou(boxes, target).sum()
    weight_is_a_constant.backward()
    assert torch.isfinite(boxes.grad).all()
    assert (boxes.grad.abs() > 0).all()


def test_a_distance_between_two_whole_ones_is_learnt_as_shares_of_both():
    logits = torch.full((1, BINS), -30.0)
    logits[0, 3], logits[0, 4] = torch.log(torch.tensor([0.75, 0.25]))
    entropy = -(0.75 * torch.log(torch.tensor(0.75)) + 0.25 * torch.log(torch.tensor(0.25)))
    loss = distribution_loss(logits, torch.tensor([3.25]))
    assert loss.item() == pytest.approx(entropy.item(), rel=1e-4)
    assert distribution_loss(logits, torch.tensor([4.0])).item() > loss.item()


def perfect(truth, side=64):
    """Raw maps of a network that is sure of one object and right about its box."""
    sizes = [(side // stride, side // stride) for stride in STRIDES]
    maps = [torch.zeros(1, BINS * SIDES + 1, *size) for size in sizes]
    centres, strides = cells(sizes, STRIDES)
    start = 0
    for level, (rows, columns) in zip(maps, sizes, strict=True):
        part = slice(start, start + rows * columns)
        start = part.stop
        here, length = centres[part], strides[part, None]
        reach = torch.cat((here - truth[:2] / length, truth[2:] / length - here), -1)
        level[:, -1] = torch.where(reach.amin(-1) > 0, 20.0, -20.0).reshape(rows, columns)
        near = reach.clamp(0, BINS - 1)[..., None]
        bins = torch.arange(BINS)
        logits = (1 - (near - bins).abs()).clamp(min=1e-9).log()
        level[0, :-1] = logits.flatten(1).T.reshape(-1, rows, columns)
    return maps


def test_a_right_answer_costs_almost_nothing_but_the_entropy_of_its_distances():
    classes = torch.zeros(1, 1, dtype=torch.int64)
    maps = perfect(BOX[0])
    right = detection_loss(maps, BOX[None], classes, Gains(distribution=0))
    moved = detection_loss(maps, BOX[None] + 9, classes, Gains(distribution=0))
    none = detection_loss(maps, BOX[None], classes - 1, Gains(distribution=0))
    assert right.item() < 0.1
    assert moved.item() > 1
    assert none.item() > 10


def test_objects_of_class_minus_one_do_not_count():
    maps = perfect(BOX[0])
    one = torch.zeros(1, 1, dtype=torch.int64)
    padded = torch.cat((BOX, torch.zeros(3, 4)))[None]
    classes = torch.tensor([[0, -1, -1, -1]])
    assert torch.equal(
        detection_loss(maps, BOX[None], one, Gains()),
        detection_loss(maps, padded, classes, Gains()),
    )


def test_an_image_without_objects_has_a_finite_loss_with_gradients():
    maps = [torch.randn(1, 65, 64 // s, 64 // s, requires_grad=True) for s in STRIDES]
    classes = torch.full((1, 4), -1)
    detection_loss(maps, torch.zeros(1, 4, 4), classes, Gains()).backward()
    assert all(torch.isfinite(level.grad).all() for level in maps)
    _, logits = flat(maps)
    assert logits.shape == (1, 64 + 16 + 4, 1)
