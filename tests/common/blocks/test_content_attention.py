# SPDX-License-Identifier: Apache-2.0
"""Content-guided attention and fusion of DEA-Net."""

import pytest
import torch
from published_blocks import assert_near, part, published
from torch import nn
from torch.nn.functional import conv2d

from fieldfare.common.blocks import ContentGuidedAttention, ContentGuidedFusion, DetailConv

KERNELS = {
    "weights.0": "conv1_5.weight",
    "weights.1": "conv1_1.conv.weight",
    "weights.2": "conv1_4.conv.weight",
    "differences.0": "conv1_3.conv.weight",
    "differences.1": "conv1_2.conv.weight",
}
BIASES = ("conv1_5", "conv1_1.conv", "conv1_3.conv", "conv1_2.conv", "conv1_4.conv")
ATTENTION = {"channel.0": "ca.ca.0", "channel.2": "ca.ca.2", "place": "sa.sa", "refine": "pa.pa2"}
SIZES = {1: (9,), 2: (9, 7), 3: (5, 7, 6)}


def loaded(module: nn.Module, names: dict[str, str], state) -> nn.Module:
    """The module with published tensors, 1x1 convolutions as linear layers."""
    own = module.state_dict()
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            value = state[f"{theirs}.{kind}"]
            own[f"{ours}.{kind}"] = value.reshape(own[f"{ours}.{kind}"].shape)
    module.load_state_dict(own)
    return module


def test_a_block_of_the_network_is_the_published_one():
    given = published("deanet/tiny_a")
    state = part(given, "sd.level3_block1.")
    detail = DetailConv(16, 16)
    bias = torch.stack([state[f"conv1.{name}.bias"] for name in BIASES])
    kernels = {ours: state[f"conv1.{theirs}"] for ours, theirs in KERNELS.items()}
    detail.load_state_dict(kernels | {"bias": bias})
    attention = loaded(ContentGuidedAttention(16), ATTENTION, state)
    x = conv2d(
        given["act.down3"],
        given["sd.fe_level_3.weight"],
        given["sd.fe_level_3.bias"],
        padding=1,
    )
    features = conv2d(detail(x).relu() + x, state["conv2.weight"], state["conv2.bias"], padding=1)
    found = features * attention(features) + x
    assert_near(found, given["act.level3_block1"], 1e-5)


@pytest.mark.parametrize(
    ("name", "channels", "reduction", "first", "second"),
    [("mix1", 16, 8, "down3", "level3_block8"), ("mix2", 8, 4, "down2", "up_level2_block4")],
)
def test_fusions_of_the_network_are_the_published_ones(name, channels, reduction, first, second):
    given = published("deanet/tiny_a")
    state = part(given, f"sd.{name}.")
    names = {f"attention.{ours}": theirs for ours, theirs in ATTENTION.items()}
    fusion = loaded(ContentGuidedFusion(channels, reduction), names | {"project": "conv"}, state)
    found = fusion(given[f"act.{first}"], given[f"act.{second}"])
    assert_near(found, given[f"act.{name}"], 1e-5)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_weights_have_the_shape_of_the_features(ndim):
    x = torch.randn(2, 16, *SIZES[ndim])
    weights = ContentGuidedAttention(16, ndim=ndim)(x)
    assert weights.shape == x.shape
    assert ((weights > 0) & (weights < 1)).all()
    assert ContentGuidedFusion(16, 4, ndim=ndim)(x, x).shape == x.shape


def test_a_channel_is_refined_by_itself_and_its_own_coarse_map():
    attention = ContentGuidedAttention(4, 2)
    nn.init.zeros_(attention.place.weight)  # leaves the mean of all, through the channel branch
    nn.init.zeros_(attention.channel[2].weight)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    attention(x)[0, 2].sum().backward()
    assert x.grad[0].abs().sum((1, 2)).nonzero().flatten().tolist() == [2]


def test_fusion_passes_between_the_sum_and_one_and_a_half():
    # sigmoid twice: the first feature's weight is in (0.5, 0.7311)
    fusion = ContentGuidedFusion(8, ndim=2)
    nn.init.dirac_(fusion.project.weight)
    nn.init.zeros_(fusion.project.bias)
    x, y = torch.ones(1, 8, 6, 6), torch.zeros(1, 8, 6, 6)
    found = fusion(x, y)
    assert ((found > 1.5) & (found < 1.7311)).all()
    assert torch.allclose(fusion(x, x), torch.full_like(x, 3), atol=1e-6)
