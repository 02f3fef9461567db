# SPDX-License-Identifier: Apache-2.0
"""Losses on tensors small enough to work out by hand."""

import math

import pytest
import torch

from fieldfare.medical.training import losses

SURE = 30.0
"""A logit whose sigmoid is 1 in float32."""


def test_truth_maps_are_nested():
    depth = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    whole, core, enhancing = losses.truth_maps(depth)[0]
    assert whole.tolist() == [[0, 1], [1, 1]]
    assert core.tolist() == [[0, 0], [1, 1]]
    assert enhancing.tolist() == [[0, 0], [0, 1]]
    assert torch.equal(losses.truth_maps(depth, ("ET", "WT"))[0], torch.stack([enhancing, whole]))


def test_soft_dice_by_hand():
    """Probabilities 1, 1, 0, 0 against 1, 0, 1, 0: 1 - (2 + 1) / (2 + 2 + 1)."""
    logits = torch.tensor([SURE, SURE, -SURE, -SURE]).view(1, 1, 2, 2)
    truth = torch.tensor([1.0, 0, 1, 0]).view(1, 1, 2, 2)
    assert losses.soft_dice(logits, truth).tolist() == pytest.approx([1 - 3 / 5])


def test_soft_dice_counts_over_the_batch():
    """One sample without the region, one with it: together as if they were one."""
    logits, truth = torch.randn(2, 3, 4, 4, 4), (torch.rand(2, 3, 4, 4, 4) > 0.5).float()
    truth[0, 1] = 0
    joined = [t.transpose(0, 1).reshape(1, 3, 8, 4, 4) for t in (logits, truth)]
    assert torch.allclose(losses.soft_dice(logits, truth), losses.soft_dice(*joined))


def test_a_region_that_is_absent_asks_for_an_empty_map():
    truth = torch.zeros(1, 1, 3, 3, 3)
    assert losses.soft_dice(torch.full_like(truth, -SURE), truth).item() == pytest.approx(0)
    assert losses.soft_dice(torch.full_like(truth, SURE), truth).item() == pytest.approx(27 / 28)


def test_cross_entropy_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)  # probabilities 1/2 and 3/4
    truth = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    wanted = [math.log(2), math.log(4)]
    assert losses.cross_entropy(logits, truth).tolist() == pytest.approx(wanted)


def test_region_weights_are_shares():
    logits, truth = torch.randn(2, 3, 5, 5, 5), (torch.rand(2, 3, 5, 5, 5) > 0.5).float()
    each = losses.soft_dice(logits, truth) + losses.cross_entropy(logits, truth)
    for weights in ((1, 1, 1), (1, 0, 0), (2, 4, 2)):
        wanted = sum(w * float(e) for w, e in zip(weights, each, strict=True)) / sum(weights)
        assert losses.region_loss(logits, truth, weights).item() == pytest.approx(wanted, rel=1e-5)


def test_levels_halve_and_sum_to_one():
    assert losses.level_weights(1) == [1]
    assert losses.level_weights(3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def test_deep_supervision_compares_a_coarse_map_with_shares_of_its_ground():
    depth = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    depth[:, :2, :2, :1] = 3  # half of one coarse voxel
    truth = losses.truth_maps(depth)
    fine, coarse = torch.randn(1, 3, 4, 4, 4), torch.randn(1, 3, 2, 2, 2)
    shares = torch.zeros(1, 3, 2, 2, 2)
    shares[:, :, 0, 0, 0] = 0.5
    ones = (1, 1, 1)
    wanted = 2 / 3 * losses.region_loss(fine, truth, ones)
    wanted += 1 / 3 * losses.region_loss(coarse, shares, ones)
    found = losses.deep_supervision([fine, coarse], truth, ones)
    assert found.item() == pytest.approx(wanted.item())
    alone = losses.region_loss(fine, truth, ones)
    assert losses.deep_supervision(fine, truth, ones).item() == pytest.approx(alone.item())


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_gradient_points_towards_the_truth(ndim):
    truth = (torch.rand(1, 3, *[6] * ndim) > 0.5).float()
    logits = torch.zeros_like(truth, requires_grad=True)
    losses.region_loss(logits, truth, (1, 1, 1)).backward()
    assert logits.grad is not None
    assert ((logits.grad < 0) == (truth > 0)).all()
