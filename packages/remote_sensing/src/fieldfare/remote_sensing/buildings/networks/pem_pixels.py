# SPDX-License-Identifier: Apache-2.0
"""The pixel decoder of PEM: features of four strides joined into one fine map, and three to attend.

Cavagnero et al. 2024, "PEM: Prototype-based Efficient MaskFormer for Image Segmentation"
(arXiv 2402.19422), section 3.3. Tensors bear the names of the published network, so that its
checkpoints fit.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = 3
SHIFTS = 2 * KERNEL**2
"""Channels of the offsets of a deformable convolution, (down, across) of each tap."""


class ConvNorm(nn.Module):
    """1x1 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        return F.relu(self.bn(self.conv(x)))


class _Gate(nn.Module):
    """Weights of channels by their means, as published with two sigmoids: between 0.5 and 0.73."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(width, width // 2, 1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = F.adaptive_avg_pool2d(x, 1)
        return torch.sigmoid(torch.sigmoid(self.mlp(mean)))


class ContextSelection(nn.Module):
    """A map plus itself weighted by channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(_Gate(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w), same out."""
        found: Tensor = x + x * self.mlp(x)
        return found


class DeformableUp(nn.Module):
    """Modulated deformable convolution (Zhu et al., arXiv 1811.11168), then twice the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dcn_offset = nn.Conv2d(width, SHIFTS + KERNEL**2, KERNEL, padding=1)
        self.dcn = nn.Conv2d(width, width, KERNEL, padding=1, bias=False)
        self.dcn_bn = nn.BatchNorm2d(width)
        self.up_sample = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False)
        self.up_bn = nn.BatchNorm2d(width)
        for parameter in self.dcn_offset.parameters():
            nn.init.zeros_(parameter)
        linear = torch.tensor([0.25, 0.75, 0.75, 0.25])
        with torch.no_grad():  # starts as bilinear enlarging of each channel
            self.up_sample.weight.zero_()
            self.up_sample.weight[range(width), range(width)] = linear[:, None] * linear

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width, h, w) -> the same size, and (B, width, 2h, 2w)."""
        from torchvision.ops import deform_conv2d  # takes seconds

        found = self.dcn_offset(x)
        taken = deform_conv2d(  # it knows float32 alone
            x.float(),
            found[:, :SHIFTS].float().contiguous(),
            self.dcn.weight.float(),
            padding=(1, 1),
            mask=found[:, SHIFTS:].float().sigmoid().contiguous(),
        )
        here = F.relu(self.dcn_bn(taken.to(found.dtype)))
        return here, F.relu(self.up_bn(self.up_sample(here)))


class PixelDecoder(nn.Module):
    """Features of strides 4 to 32 -> a map at stride 4, and maps at strides 32, 16, 8.

    Args:
        channels: of the features, finest first.
        width: of all maps.
        outputs: channels of the map at stride 4, which masks are made of.

    In training a batch must hold two images: norms stand on maps of one pixel.
    """

    def __init__(self, channels: Sequence[int], width: int, outputs: int) -> None:
        super().__init__()
        self.in_projections = nn.ModuleList(ConvNorm(inputs, width) for inputs in channels)
        self.conv_avg = ConvNorm(channels[-1], width)
        self.csm = nn.ModuleList(ContextSelection(width) for _ in channels)
        self.dcn = nn.ModuleList(DeformableUp(width) for _ in channels[1:])
        self.out = ConvNorm(width, outputs)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(B, C, h, w) features, finest first -> (B, outputs, h, w); coarse to fine (B, width)."""
        inside = [project(f) for project, f in zip(self.in_projections, features, strict=True)]
        up = self.conv_avg(F.adaptive_avg_pool2d(features[-1], 1))
        levels = []
        for select, deform, x in zip(self.csm, self.dcn, reversed(inside), strict=False):
            here, up = deform(select(x) + up)
            levels.append(here)
        mask_features: Tensor = self.out(self.csm[-1](inside[0]) + up)
        return mask_features, levels
