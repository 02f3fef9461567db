# SPDX-License-Identifier: Apache-2.0
"""The N-D MobileNetV2 is timm's in two dimensions, and the same arithmetic in the others."""

import pytest
import torch
from torch import nn

from fieldfare.common.backbones import MobileNetV2Encoder
from fieldfare.common.encoders import create_encoder


@pytest.mark.parametrize(("name", "width"), [("mobilenetv2_050", 0.5), ("mobilenetv2_100", 1.0)])
def test_two_dimensional_form_equals_timm_weight_for_weight(name, width):
    torch.manual_seed(0)
    ours = MobileNetV2Encoder(3, 2, width).eval()
    theirs = create_encoder(name, 3).eval()
    assert (ours.channels, ours.strides) == (theirs.channels, theirs.strides)
    source, target = theirs.state_dict(), ours.state_dict()
    assert len(source) == len(target)
    ours.load_state_dict(dict(zip(target, source.values(), strict=True)))
    x = torch.randn(1, 3, 65, 49)
    with torch.no_grad():
        for feature, expected in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(feature, expected)


def test_three_dimensional_form_on_a_stack_of_equal_slices_is_the_two_dimensional_one():
    # A kernel that is the 2-D one in its middle slice and zero in the others sees one slice only.
    torch.manual_seed(0)
    flat, deep = MobileNetV2Encoder(2, 2, 0.5).eval(), MobileNetV2Encoder(2, 3, 0.5).eval()
    with torch.no_grad():
        for two, three in zip(flat.modules(), deep.modules(), strict=True):
            if isinstance(three, nn.Conv3d):
                three.weight.zero_()
                three.weight[:, :, three.kernel_size[0] // 2] = two.weight
        x = torch.randn(1, 2, 32, 32)
        volume = x[:, :, None].expand(-1, -1, 32, -1, -1)
        for two, three in zip(flat(x), deep(volume), strict=True):
            torch.testing.assert_close(three, two[:, :, None].expand_as(three))
