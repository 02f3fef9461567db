# SPDX-License-Identifier: Apache-2.0
"""Detail-enhanced convolution: the published branches, and what each can and cannot see."""

import pytest
import torch
from published_blocks import assert_near, part, published
from timm.utils.model import reparameterize_model
from torch import nn

from fieldfare.common.blocks import DetailConv, convolve

PUBLISHED = {
    "weights.0": "conv1_5.weight",
    "weights.1": "conv1_1.conv.weight",
    "weights.2": "conv1_4.conv.weight",
    "differences.0": "conv1_3.conv.weight",
    "differences.1": "conv1_2.conv.weight",
}
BIASES = ("conv1_5", "conv1_1.conv", "conv1_3.conv", "conv1_2.conv", "conv1_4.conv")
BRANCHES = ("vanilla", "central", "vertical", "horizontal", "angular")


def layer(given) -> DetailConv:
    state = part(given, "sd.")
    ours = {name: state[theirs] for name, theirs in PUBLISHED.items()}
    module = DetailConv(6, 6)
    module.load_state_dict(ours | {"bias": torch.stack([state[f"{b}.bias"] for b in BIASES])})
    return module


def test_each_branch_and_their_sum_are_the_published_ones():
    given = published("deanet/deconv")
    module = layer(given)
    for kernel, bias, name in zip(module.kernels(), module.bias, BRANCHES, strict=True):
        if name != "vanilla":
            # the published code builds all but the plain kernel
            assert_near(kernel, given[f"act.kernel.{name}"], 1e-6)
        y = convolve(given["in.x"], kernel, bias, padding=1)
        assert_near(y, given[f"act.branch.{name}"], 1e-6)
    assert_near(module(given["in.x"]), given["out.y"], 2e-6)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_all_branches_fold_into_one_convolution(ndim):
    module = DetailConv(3, 5, ndim=ndim)
    x = torch.randn(2, 3, *[6] * ndim)
    branches = sum(
        convolve(x, kernel, bias, padding=1)
        for kernel, bias in zip(module.kernels(), module.bias, strict=True)
    )
    (fused,) = reparameterize_model(nn.Sequential(module))
    assert type(fused) is {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim]
    assert_near(fused(x), branches, 2e-6)
    assert torch.equal(fused(x), module(x))


@pytest.mark.parametrize(("ndim", "branches"), [(1, 3), (2, 5), (3, 8)])
def test_all_but_the_plain_branch_see_no_constant(ndim, branches):
    plain, *others = DetailConv(2, 3, ndim=ndim).kernels()
    axes = tuple(range(2, 2 + ndim))
    assert len(others) == branches - 1
    assert plain.sum(axes).abs().min() > 1e-4
    for kernel in others:
        assert kernel.sum(axes).abs().max() < 1e-6


def test_a_difference_along_one_axis_sees_no_slope_along_another():
    _, _, *differences = DetailConv(1, 1, ndim=3).kernels()
    for axis, kernel in enumerate(differences[:3]):
        for other in range(3):
            slope = torch.arange(3.0).view([-1 if i == other else 1 for i in range(3)])
            seen = (kernel * slope).sum().abs()
            assert (seen > 1e-4) == (axis == other)


def test_the_ring_comes_back_after_eight_steps():
    from fieldfare.common.blocks.detail_conv import _turn

    turned = weight = torch.arange(27.0).view(1, 1, 3, 3, 3)
    for step in range(1, 9):
        turned = _turn(turned, (0, 2))
        assert torch.equal(turned, weight) == (step == 8)


def test_three_dimensions_give_two_on_a_volume_of_one_slice():
    flat, deep = DetailConv(3, 4), DetailConv(3, 4, ndim=3)
    for value in deep.parameters():
        nn.init.zeros_(value)
    with torch.no_grad():
        for i, j in ((0, 0), (1, 1), (2, 4)):  # plain, central, angular in the plane of the slice
            deep.weights[j][:, :, 1] = flat.weights[i]
        for axis in range(2):
            deep.differences[1 + axis][:, :, 1] = flat.differences[axis]
        deep.bias[0] = flat.bias.sum(0)
    x = torch.randn(2, 3, 6, 7)
    assert_near(deep(x[:, :, None])[:, :, 0], flat(x).detach(), 1e-6)


def test_no_fourth_dimension():
    with pytest.raises(ValueError, match="ndim"):
        DetailConv(2, 2, ndim=4)
