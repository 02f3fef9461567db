# SPDX-License-Identifier: Apache-2.0
"""Lite R-ASPP, the small segmentation head of MobileNetV3.

Howard et al. 2019, "Searching for MobileNetV3" (arXiv 1905.02244), section 6.4 and figure 10. The
gate is a global average instead of the paper's large strided pool, as in torchvision.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class LRASPP(nn.Module):
    """A gated 1x1 branch on coarse features plus a 1x1 classifier on fine ones.

    Args:
        low_channels: of the fine features (stride 8).
        high_channels: of the coarse features.
        outputs: maps of logits.
        inner_channels: of the branch.
    """

    def __init__(
        self, low_channels: int, high_channels: int, outputs: int, inner_channels: int = 128
    ) -> None:
        super().__init__()
        self.cbr = nn.Sequential(
            nn.Conv2d(high_channels, inner_channels, 1, bias=False),
            nn.BatchNorm2d(inner_channels),
            nn.ReLU(inplace=True),
        )
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(high_channels, inner_channels, 1, bias=False),
            nn.Sigmoid(),
        )
        self.low_classifier = nn.Conv2d(low_channels, outputs, 1)
        self.high_classifier = nn.Conv2d(inner_channels, outputs, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(B, C_low, h, w) and (B, C_high, h', w') -> logits (B, outputs, h, w)."""
        x = self.cbr(high) * self.scale(high)
        x = F.interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.low_classifier(low) + self.high_classifier(x)
        return logits
