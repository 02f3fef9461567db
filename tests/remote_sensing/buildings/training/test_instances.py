# SPDX-License-Identifier: Apache-2.0
"""Matching and losses of queries, against the published ones; and what they ask for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fieldfare.remote_sensing.buildings.networks.pem import Found
from fieldfare.remote_sensing.buildings.training.instances import (
    InstanceObjective,
    Target,
    at_points,
    class_loss,
    mask_losses,
    match,
    targets_of,
    unsure_points,
)

REFERENCE = Path(__file__).parents[3] / "reference" / "pem" / "post_and_loss.safetensors"


@pytest.fixture(scope="module")
def given():
    tensors = load_file(REFERENCE)
    return {name.removeprefix("loss."): t for name, t in tensors.items() if name[:5] == "loss."}


def test_matching_and_losses_equal_the_published_ones(given):
    classes, masks = given["in.pred_logits"], given["in.pred_masks"]
    labels = torch.full(classes.shape[:2], 4)
    said, true = [], []
    for number in range(2):
        truth = given[f"in.masks.{number}"].float()
        target = Target(given[f"in.labels.{number}"], truth, torch.ones(truth.shape[1:]))
        points = given[f"match_points.{number}"]
        query, other = match(classes[number], masks[number], target, points)
        assert torch.equal(query, given[f"out.match_query.{number}"])
        assert torch.equal(other, given[f"out.match_target.{number}"])
        labels[number, query] = target.classes[other]
        said.append(masks[number, query])
        true.append(truth[other])
    assert float(class_loss(classes, labels)) == pytest.approx(given["out.loss_ce"].item())
    logits, truth = torch.cat(said), torch.cat(true)
    points = unsure_points(logits, 48, given["points.oversampled"], given["points.fill"])
    assert torch.equal(points, given["points.used"])
    known = torch.ones(points.shape[:2])
    found = mask_losses(at_points(logits, points), at_points(truth, points), known, len(logits))
    expected = [given["out.loss_mask"].item(), given["out.loss_dice"].item()]
    assert [float(value) for value in found] == pytest.approx(expected)


def test_targets_are_the_roofs_of_which_enough_is_known():
    numbers = torch.zeros(1, 16, 16)
    numbers[0, :4, :4], numbers[0, 8:, 8:], numbers[0, 0, 10:14] = 3, 5, 7
    known = torch.ones(1, 16, 16)
    known[0, 12:] = 0
    (target,) = targets_of(numbers, known)
    assert target.masks.sum((1, 2)).tolist() == [16, 64]
    assert target.classes.tolist() == [0, 0]
    assert torch.equal(target.known, known[0])


class Says(torch.nn.Module):
    def __init__(self, classes, masks):
        super().__init__()
        self.found = [Found(classes, masks)]

    def forward(self, image):
        return self.found


def batch(numbers, known=None):
    known = torch.ones(numbers.shape) if known is None else known
    return {"image": torch.zeros(len(numbers), 3, 1, 1), "truth": numbers[:, None], "weight": known}


def test_a_perfect_answer_costs_next_to_nothing_and_a_joined_one_more():
    numbers = torch.zeros(1, 32, 32)
    numbers[0, 4:28, 4:16], numbers[0, 4:28, 16:28] = 1, 2
    masks = torch.full((1, 3, 32, 32), -20.0)
    masks[0, 2][numbers[0] == 1] = masks[0, 0][numbers[0] == 2] = 20
    sure, none = [20.0, -20], [-20.0, 20]
    classes = torch.tensor([[sure, none, sure]])

    def loss(classes, masks, **more):
        torch.manual_seed(0)
        return float(InstanceObjective()(Says(classes, masks), batch(numbers, **more)))

    best = loss(classes, masks)
    joined = masks.clone()
    joined[0, 2][numbers[0] > 0] = 20
    one = torch.tensor([[none, none, sure]])
    assert loss(one, joined) > best + 2
    assert loss(one, joined, known=(numbers != 2).float()) < loss(one, joined) - 2


def test_an_image_without_roofs_asks_for_no_object_only():
    masks = torch.randn(1, 2, 8, 8, requires_grad=True)
    classes = torch.zeros(1, 2, 2, requires_grad=True)
    loss = InstanceObjective()(Says(classes, masks), batch(torch.zeros(1, 32, 32)))
    loss.backward()
    assert (classes.grad[..., 0] > 0).all()
    assert not masks.grad.any()
