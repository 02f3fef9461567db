# SPDX-License-Identifier: Apache-2.0
"""The mobile inverted bottleneck in any number of dimensions.

Sandler et al. 2018, MobileNetV2 (arXiv 1801.04381): expand by 1x1x1, filter depthwise by 3x3x3,
project linearly by 1x1x1. There is no shortcut here: the network around it has one.
"""

from torch import Tensor, nn

from .attention import EfficientChannelAttention, SqueezeExcite
from .depthwise import DepthwiseConv
from .group_size import group_convolution
from .nd import convolution, normalisation

ATTENTIONS = ("none", "se", "eca")


class MBConv(nn.Module):
    """(B, channels, *size) -> (B, out_channels, *size).

    Args:
        channels: of the input.
        out_channels: as many as channels when None.
        expansion: hidden channels for each of the input.
        ndim: 1, 2 or 3.
        norm: `group`, `instance`, `evonorm` (or `batch`, which a reversible stage refuses). EvoNorm
            stands for the hidden norms and their activations; the projection has a group norm.
        attention: on the hidden channels; one of `ATTENTIONS`.
        dropout: before the projection.
        group_size: hidden channels that the filter mixes; 1 is depthwise.

    Raises:
        ValueError: no such attention or norm, or group_size does not divide the hidden channels.
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
        group_size: int = 1,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        hidden = channels * expansion
        spatial = (
            DepthwiseConv(hidden, ndim=ndim)
            if group_size == 1
            else group_convolution(ndim, hidden, 3, group_size, bias=False)
        )

        def normed() -> list[nn.Module]:
            layer = normalisation(norm, ndim, hidden)
            return [layer] if norm == "evonorm" else [layer, nn.SiLU()]

        expand = convolution(ndim, channels, hidden, 1, bias=False)
        layers: list[nn.Module] = [expand, *normed(), spatial, *normed()]
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
            normalisation("group" if norm == "evonorm" else norm, ndim, out_channels),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *size) -> (B, out_channels, *size)."""
        found: Tensor = self.layers(x)
        return found
