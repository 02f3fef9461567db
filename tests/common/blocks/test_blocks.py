# SPDX-License-Identifier: Apache-2.0
"""Attention, mobile bottleneck and ASPP in one, two and three dimensions."""

from functools import partial

import pytest
import torch
from published_blocks import assert_near, part, published
from timm.layers import EcaModule
from timm.models._efficientnet_blocks import InvertedResidual
from timm.models._efficientnet_blocks import SqueezeExcite as TimmSqueezeExcite
from torch import nn

from fieldfare.common.blocks import (
    ASPP,
    EfficientChannelAttention,
    MBConv,
    SqueezeExcite,
    eca_kernel,
    normalisation,
)
from fieldfare.common.blocks.mbconv import make_divisible

SIZES = {1: (9,), 2: (9, 7), 3: (5, 7, 6)}


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("attention", ["none", "se", "eca"])
@pytest.mark.parametrize("norm", ["group", "instance", "batch"])
def test_mbconv_keeps_size_and_changes_channels(ndim, attention, norm):
    block = MBConv(6, 10, ndim=ndim, attention=attention, norm=norm)
    assert block(torch.randn(2, 6, *SIZES[ndim])).shape == (2, 10, *SIZES[ndim])


def test_mbconv_filters_depthwise_and_projects_linearly():
    block = MBConv(4, expansion=3)
    shapes = [tuple(w.shape) for w in block.parameters() if w.ndim == 5]
    assert shapes == [(12, 4, 1, 1, 1), (12, 1, 3, 3, 3), (4, 12, 1, 1, 1)]
    assert isinstance(block.layers[-1], nn.GroupNorm)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 5])
def test_mbconv_with_a_stride_halves_and_rounds_up(ndim, kernel):
    block = MBConv(4, 6, ndim=ndim, hidden=10, kernel=kernel, stride=2, activation="relu")
    assert block(torch.randn(1, 4, *SIZES[ndim])).shape[2:] == tuple(
        -(-n // 2) for n in SIZES[ndim]
    )
    assert block.layers[3].weight.shape == (10, 1, *[kernel] * ndim)
    with pytest.raises(ValueError, match="activation must be one of"):
        MBConv(4, activation="tanh")


def test_mbconv_equals_the_block_of_mobilenetv3_in_timm():
    theirs = InvertedResidual(
        8, 12, 5, stride=2, exp_ratio=6, act_layer=nn.Hardswish,
        se_layer=partial(
            TimmSqueezeExcite, gate_layer=nn.Hardsigmoid, rd_round_fn=make_divisible,
            force_act_layer=nn.ReLU,
        ),
    ).eval()  # fmt: skip
    ours = MBConv(
        8, 12, hidden=48, kernel=5, stride=2, ndim=2, norm="batch", attention="hard_se",
        activation="hard_swish",
    ).eval()  # fmt: skip
    own = [t for n, t in ours.state_dict().items()]
    given = {n: t for n, t in theirs.state_dict().items() if not n.startswith("se.")}
    order = [n for n in given if n.split(".")[0] in ("conv_pw", "bn1", "conv_dw", "bn2")]
    order += [n for n in theirs.state_dict() if n.startswith("se.")]
    order += [n for n in given if n.split(".")[0] in ("conv_pwl", "bn3")]
    for mine, name in zip(own, order, strict=True):
        mine.copy_(theirs.state_dict()[name].view(mine.shape))
    x = torch.randn(2, 8, 11, 10)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_make_divisible_never_falls_below_nine_tenths():
    assert [make_divisible(w) for w in (1, 11, 12, 20, 27, 28)] == [8, 16, 16, 24, 32, 32]
    assert all(make_divisible(w) >= 0.9 * w for w in range(1, 200))


def test_eca_in_two_dimensions_equals_timm():
    ours, theirs = EfficientChannelAttention(32, kernel=3), EcaModule(kernel_size=3)
    theirs.conv.weight.data.copy_(ours.conv.weight.data)
    x = torch.randn(2, 32, 5, 6)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["c12_k3", "c32_k5", "c8_k7"])
def test_eca_gives_the_published_outputs_and_gradients(name):
    given = part(published("eca/layers"), f"{name}.")
    attention = EfficientChannelAttention(given["in.x"].shape[1], given["weight"].shape[-1])
    attention.conv.weight.data.copy_(given["weight"])
    x = given["in.x"].clone().requires_grad_()
    y = attention(x)
    assert_near(y, given["out.y"], 1e-6)
    y.backward(given["grad.cotangent"])
    assert_near(x.grad, given["grad.x"], 1e-6)
    assert_near(attention.conv.weight.grad, given["grad.weight"], 1e-5)


def test_eca_in_three_dimensions_equals_two_on_a_volume_of_one_slice():
    attention, x = EfficientChannelAttention(16), torch.randn(2, 16, 5, 6)
    assert torch.allclose(attention(x[:, :, None])[:, :, 0], attention(x), atol=1e-6)


@pytest.mark.parametrize(("channels", "kernel"), [(8, 3), (64, 3), (128, 5), (512, 5), (2048, 7)])
def test_eca_kernel_follows_the_published_rule(channels, kernel):
    # |log2(C) / 2 + 1 / 2|, the nearest odd number from above, and at least 3
    assert eca_kernel(channels) == kernel


def test_eca_refuses_an_even_kernel():
    with pytest.raises(ValueError, match="odd"):
        EfficientChannelAttention(8, kernel=4)


def test_attention_scales_whole_channels():
    x = torch.rand(1, 16, 4, 4, 4) + 0.5
    for attention in (SqueezeExcite(16), EfficientChannelAttention(16)):
        scale = attention(x) / x
        assert torch.allclose(scale, scale[:, :, :1, :1, :1].expand_as(scale), atol=1e-6)
        assert ((scale > 0) & (scale < 1)).all()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_aspp_keeps_size_whatever_the_rates(ndim):
    block = ASPP(8, 12, (1, 2, 4), ndim=ndim).eval()
    assert block(torch.randn(1, 8, *SIZES[ndim])).shape == (1, 12, *SIZES[ndim])


def test_aspp_branch_of_rate_r_sees_r_pixels_to_each_side():
    block = ASPP(1, 1, (3,)).eval()
    x = torch.zeros(1, 1, 15, 15, requires_grad=True)
    block.branches[1][0](x)[0, 0, 7, 7].backward()
    rows, columns = x.grad[0, 0].nonzero(as_tuple=True)
    assert sorted(set(rows.tolist())) == sorted(set(columns.tolist())) == [4, 7, 10]


def test_group_norm_takes_any_number_of_channels():
    assert normalisation("group", 3, 12).num_groups == 4
    assert normalisation("group", 3, 7).num_groups == 1
    with pytest.raises(ValueError, match="norm must be"):
        normalisation("layer", 3, 8)
    with pytest.raises(ValueError, match="ndim"):
        normalisation("batch", 4, 8)
