# SPDX-License-Identifier: Apache-2.0
"""The mobile inverted bottleneck in any number of dimensions.

Sandler et al. 2018, MobileNetV2 (arXiv 1801.04381): expand by 1x1x1, filter depthwise by 3x3x3,
project linearly by 1x1x1. There is no shortcut here: the network around it has one.
"""

from torch import Tensor, nn

from .attention import EfficientChannelAttention, SqueezeExcite
from .depthwise import DepthwiseConv
from .nd import convolution, normalisation

ATTENTIONS = ("none", "se", "eca")


class MBConv(nn.Module):
    """(B, channels, *size) -> (B, out_channels, *size).

    Args:
        channels: of the input.
        out_channels: as many as channels when None.
        expansion: hidden channels for each of the input.
        ndim: 1, 2 or 3.
        norm: `group` or `instance` (or `batch`, which a reversible stage refuses).
        attention: on the hidden channels; one of `ATTENTIONS`.
        dropout: before the projection.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        *,
        expansion: int = 4,
        ndim: int = 3,
        norm: str = "group",
        attention: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        hidden = channels * expansion
        layers: list[nn.Module] = [
            convolution(ndim, channels, hidden, 1, bias=False),
            normalisation(norm, ndim, hidden),
            nn.SiLU(),
            DepthwiseConv(hidden, ndim=ndim),
            normalisation(norm, ndim, hidden),
            nn.SiLU(),
        ]
        if attention == "se":
            layers.append(SqueezeExcite(hidden, reduction=4 * expansion))
        elif attention == "eca":
            layers.append(EfficientChannelAttention(hidden))
        elif attention != "none":
            raise ValueError(f"attention must be one of {ATTENTIONS}, got {attention!r}")
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers += [
            convolution(ndim, hidden, out_channels, 1, bias=False),
            normalisation(norm, ndim, out_channels),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *size) -> (B, out_channels, *size)."""
        found: Tensor = self.layers(x)
        return found
