# SPDX-License-Identifier: Apache-2.0
"""DEA-Net as it is run: convolutions folded, attention without its interleaved copy.

The refining convolution of content-guided attention (arXiv 2301.04805, eq. 6) sees each channel
beside its coarse map, which is channel importance + place importance. A convolution is linear: that
of the channel's importance, a constant, is the constant times the kernel's sum (reflection leaves a
constant as it is), and that of the place's importance, one map for all channels, is one convolution
from 1 to C channels. So the maps need not be added up, nor stacked channel by channel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.blocks import ContentGuidedAttention
from fieldfare.common.blocks.fuse import fuse

from .deanet import DEANet


class FoldedAttention(nn.Module):
    """The weights of a `ContentGuidedAttention` in two dimensions, (B, C, H, W) in and out."""

    def __init__(self, attention: ContentGuidedAttention) -> None:
        super().__init__()
        self.channel, self.place = attention.channel, attention.place
        refine = attention.refine
        assert isinstance(refine, nn.Conv2d)
        assert refine.bias is not None
        own, coarse = refine.weight.detach().split(1, dim=1)
        self.reach = refine.kernel_size[0] // 2
        self.own = nn.Parameter(own.contiguous())
        self.coarse = nn.Parameter(coarse.contiguous())
        self.sums = nn.Parameter(coarse.sum(dim=(1, 2, 3)))
        self.bias = nn.Parameter(refine.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> weights of the same shape."""
        channel = self.channel(x.mean(dim=(2, 3)))
        place = self.place(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1))
        refined = F.conv2d(self._padded(x), self.own, self.bias, groups=x.shape[1])
        refined = refined + F.conv2d(self._padded(place), self.coarse)
        constant: Tensor = channel * self.sums
        return torch.sigmoid(refined + constant[..., None, None])

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, [self.reach] * 4, mode="reflect")


def hastened(model: DEANet) -> nn.Module:
    """A copy of the network for inference that computes the same, up to float32's rounding."""
    fast = fuse(model)
    for parent in list(fast.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ContentGuidedAttention):
                setattr(parent, name, FoldedAttention(child))
    return fast.eval()
