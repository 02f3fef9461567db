# SPDX-License-Identifier: Apache-2.0
"""Content-guided attention and fusion: a weight for every channel at every place.

Chen et al. 2024, DEA-Net (arXiv 2301.04805), sections III-B and III-C; in one, two and three
dimensions.
"""

import torch
from torch import Tensor, nn

from .nd import convolution

KERNEL = 7


class ContentGuidedAttention(nn.Module):
    """Weights in (0, 1) for features, (B, C, *size) in and out; each side at least 4.

    A channel's and a place's importance are added to a coarse map, and a convolution of each
    channel with its own coarse map refines it.

    Args:
        channels: C.
        reduction: the hidden layer of the channels' importance has C / reduction units.
        ndim: 1, 2 or 3.
    """

    def __init__(self, channels: int, reduction: int = 8, *, ndim: int = 2) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        reflect = {"padding": KERNEL // 2, "padding_mode": "reflect"}
        self.place = convolution(ndim, 2, 1, KERNEL, **reflect)
        self.refine = convolution(ndim, 2 * channels, channels, KERNEL, groups=channels, **reflect)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> weights of the same shape."""
        channel = self.channel(x.flatten(2).mean(dim=2))
        place = self.place(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1))
        coarse = channel.view(*channel.shape, *[1] * (x.ndim - 2)) + place
        paired = torch.stack((x, coarse), dim=2).flatten(1, 2)  # x0, coarse0, x1, coarse1, ...
        found: Tensor = torch.sigmoid(self.refine(paired))
        return found


class ContentGuidedFusion(nn.Module):
    """Two features mixed by the content of their sum, (B, C, *size) in and out.

    As published the weights pass a second sigmoid, so they lie in (0.5, 0.73) and the first feature
    always has the greater part.

    Args:
        channels, reduction, ndim: see `ContentGuidedAttention`.
    """

    def __init__(self, channels: int, reduction: int = 8, *, ndim: int = 2) -> None:
        super().__init__()
        self.attention = ContentGuidedAttention(channels, reduction, ndim=ndim)
        self.project = convolution(ndim, channels, channels, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two of (B, C, *size) -> one."""
        both = x + y
        weight = torch.sigmoid(self.attention(both))
        found: Tensor = self.project(both + weight * x + (1 - weight) * y)
        return found
