# SPDX-License-Identifier: Apache-2.0
"""Constant group size (arXiv 2006.15100): the counts of whole networks, and one convolution."""

import pytest
import timm
import torch
from torch import nn

from fieldfare.common.blocks import MBConv, group_convolution, regroup
from fieldfare.common.efficiency import cost

MOBILENET = {
    1: (4_231_976, 568_740_352),
    2: (4_276_616, 586_126_336),
    4: (4_365_896, 620_898_304),
    8: (4_544_456, 690_442_240),
    16: (4_901_576, 829_530_112),
    32: (5_615_816, 1_107_705_856),
}
RESNEXT = {
    4: (23_886_120, 4_098_617_344),
    8: (24_157_992, 4_197_965_824),
    16: (24_701_736, 4_396_662_784),
    32: (25_789_224, 4_794_056_704),
}


def counted(name: str, group_size: int):
    with torch.device("meta"):
        model = timm.create_model(name)
        replaced = regroup(model, group_size)
        found = cost(model, (1, 3, 224, 224))
    return replaced, found.parameters, found.macs


@pytest.mark.parametrize("group_size", MOBILENET)
def test_mobilenet_v1_has_the_parameters_and_macs_of_the_rule(group_size):
    assert counted("mobilenetv1_100", group_size) == (13, *MOBILENET[group_size])


@pytest.mark.parametrize("group_size", RESNEXT)
def test_resnext_50_has_the_parameters_and_macs_of_the_rule(group_size):
    assert counted("resnext50_32x4d", group_size) == (16, *RESNEXT[group_size])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_group_sees_its_own_channels_only(ndim):
    layer = group_convolution(ndim, 12, 3, 4)
    x = torch.zeros(1, 12, *[5] * ndim, requires_grad=True)
    layer(x)[0, 5].sum().backward()
    touched = x.grad[0].flatten(1).abs().sum(1).nonzero().flatten().tolist()
    assert touched == [4, 5, 6, 7]
    assert layer(x).shape == x.shape


def test_a_size_of_one_is_depthwise():
    assert group_convolution(3, 12, 3, 1, bias=False).weight.shape == (12, 1, 3, 3, 3)


def test_a_bottleneck_mixes_groups_of_hidden_channels():
    block = MBConv(6, expansion=4, ndim=3, group_size=8)
    shapes = [tuple(w.shape) for w in block.parameters() if w.ndim == 5]
    assert shapes == [(24, 6, 1, 1, 1), (24, 8, 3, 3, 3), (6, 24, 1, 1, 1)]


def test_a_size_that_does_not_divide_is_refused_with_both_numbers():
    for build in (lambda: group_convolution(2, 12, 3, 5), lambda: MBConv(3, group_size=5)):
        with pytest.raises(ValueError, match="group_size 5 must divide channels 12"):
            build()


def test_a_model_with_one_layer_that_does_not_divide_is_unchanged():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(6, 6, 3, groups=6))
    with pytest.raises(ValueError, match="1: group_size 4 must divide channels 6"):
        regroup(model, 4)
    assert [layer.groups for layer in model] == [8, 6]


def test_stride_dilation_and_bias_stay():
    model = nn.Sequential(nn.Conv1d(8, 16, 5, 2, 3, dilation=2, groups=8, bias=False))
    shape = model(torch.zeros(1, 8, 40)).shape
    assert regroup(model, 4) == 1
    assert model[0].weight.shape == (16, 4, 5)
    assert model[0].bias is None
    assert model(torch.zeros(1, 8, 40)).shape == shape
