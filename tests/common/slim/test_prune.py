# SPDX-License-Identifier: Apache-2.0
"""Pruning: the schedule to one block, nested masks, zeros that stay, dense layers that stay."""

import pytest
import torch
from torch import nn

from fieldfare.common.blocks.sparse_blocks import pack
from fieldfare.common.slim.prune import Pruner, cubic, mask_smallest, prunable


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),  # the first convolution, though it is 1x1
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 12, 1),
        nn.ReLU(),
        nn.Conv2d(12, 6, 1),
        nn.Flatten(),
    )


def train(model, optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 4, 4)).square().mean().backward()
        optimizer.step()


def test_the_share_of_zeros_follows_a_cubic_curve():
    assert cubic(0, 0.9) == 0
    assert cubic(1, 0.9) == cubic(7, 0.9) == 0.9
    assert cubic(0.5, 0.8) == pytest.approx(0.8 * (1 - 0.5**3))
    assert cubic(0.5, 0.8, 0.4) == pytest.approx(0.8 - 0.4 / 8)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("sparsity", [0, 0.3, 0.85, 1])
def test_the_smallest_blocks_go_and_their_number_is_right_to_one(rows, sparsity):
    weight = torch.randn(10, 7, 1, 1)
    mask = mask_smallest(weight, sparsity, rows=rows)
    blocks = -(-10 // rows)
    padded = torch.zeros(blocks * rows, 7)
    padded[:10] = weight.abs()[:, :, 0, 0] + 1e-9
    sizes = padded.view(blocks, rows, 7).sum(1)
    kept = torch.zeros(blocks * rows, 7, dtype=torch.bool)
    kept[:10] = mask[:, :, 0, 0]
    kept = kept.view(blocks, rows, 7)
    whole = kept.any(1)
    assert int((~whole).sum()) == round(sparsity * blocks * 7)
    if 0 < sparsity < 1:
        assert sizes[whole].min() >= sizes[~whole].max()


def test_blocks_of_four_are_what_the_sparse_layer_keeps():
    weight = torch.randn(12, 9, 1, 1)
    masked = weight * mask_smallest(weight, 2 / 3)
    assert len(pack(masked.flatten(1)).columns) == 9


@pytest.mark.parametrize("rows", [1, 4])
def test_sparsity_of_each_event_and_nested_masks(rows):
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    pruner = Pruner(model, optimizer, 0.75, begin=2, end=12, every=5, rows=rows)
    before = {name: mask.clone() for name, mask in pruner.masks.items()}
    expected = {7: cubic(0.5, 0.75), 12: 0.75}
    for step in range(1, 16):
        train(model, optimizer, 1)
        for name, layer in pruner.layers.items():
            mask = pruner.masks[name]
            assert not (mask & ~before[name]).any()  # nothing comes back
            assert (layer.weight[~mask] == 0).all()
            if step in expected:
                outputs, channels = mask.shape[:2]
                blocks = -(-outputs // rows) * channels
                dropped = int((~mask[::rows]).sum())
                assert dropped == round(expected[step] * blocks)
            before[name] = mask.clone()
        if step == 2:
            assert all(mask.all() for mask in pruner.masks.values())


def test_only_pointwise_layers_behind_the_first_are_pruned():
    model = network()
    assert list(prunable(model)) == ["2", "4"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, optimizer, 1.0, begin=0, end=1, skip=["4"])
    train(model, optimizer, 1)
    assert list(pruner.layers) == ["2"]
    assert (model[2].weight == 0).all()
    for dense in (0, 1, 4):
        assert (model[dense].weight != 0).all()


def test_a_resumed_pruner_takes_up_the_zeros_that_are_there():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first = Pruner(model, optimizer, 0.5, begin=0, end=2, every=1)
    train(model, optimizer, 2)
    first.close()
    second = Pruner(model, optimizer, 0.5, begin=0, end=2, every=1)
    second.step = 2
    train(model, optimizer, 3)
    for name, mask in first.masks.items():
        assert torch.equal(second.masks[name], mask)
        assert (second.layers[name].weight[~mask] == 0).all()


def test_after_close_weights_are_free():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, optimizer, 0.5, begin=0, end=1)
    train(model, optimizer, 1)
    zeros = int((model[4].weight == 0).sum())
    pruner.close()
    train(model, optimizer, 2)
    assert int((model[4].weight == 0).sum()) < zeros  # all but those that read a dead channel


def test_what_cannot_be_pruned_is_refused():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"sparsity 1\.5"):
        mask_smallest(torch.ones(4, 4, 1, 1), 1.5)
    with pytest.raises(ValueError, match="begin 3 must be before end 3"):
        Pruner(model, optimizer, 0.5, begin=3, end=3)
    with pytest.raises(ValueError, match="no prunable layer is named 1"):
        Pruner(model, optimizer, 0.5, begin=0, end=3, skip=["1"])
    with pytest.raises(ValueError, match="no 1x1 convolution"):
        Pruner(model, optimizer, 0.5, begin=0, end=3, skip=["2", "4"])
