# SPDX-License-Identifier: Apache-2.0
"""The mobile inverted bottleneck in any number of dimensions.

Sandler et al. 2018, MobileNetV2 (arXiv 1801.04381): expand by 1x1x1, filter depthwise by 3x3x3,
project linearly by 1x1x1. There is no shortcut here: the network around it has one.
Howard et al. 2019, MobileNetV3 (arXiv 1905.02244): other activations, larger kernels, a squeeze-
excite whose gate is a clipped line.
"""

from collections.abc import Callable

from torch import Tensor, nn

from .attention import EfficientChannelAttention, SqueezeExcite
from .depthwise import DepthwiseConv
from .group_size import group_convolution
from .nd import convolution, normalisation

ATTENTIONS = ("none", "se", "hard_se", "eca")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "hard_swish": nn.Hardswish,
}


class MBConv(nn.Module):
    """(B, channels, *size) -> (B, out_channels, *size / stride), rounded up.

    Args:
        channels: of the input.
        out_channels: as many as channels when None.
        expansion: hidden channels for each of the input.
        ndim: 1, 2 or 3.
        norm: `group`, `instance`, `evonorm` (or `batch`, which a reversible stage refuses). EvoNorm
            stands for the hidden norms and their activations; the projection has a group norm.
        attention: on the hidden channels; one of `ATTENTIONS`. `hard_se` is MobileNetV3's, a
            quarter of the hidden channels wide, to a multiple of 8.
        dropout: before the projection.
        group_size: hidden channels that the filter mixes; 1 is depthwise.
        hidden: hidden channels, in place of expansion.
        kernel: odd side of the filter.
        stride: of the filter.
        activation: of the hidden channels; one of `ACTIVATIONS`.

    Raises:
        ValueError: no such attention, norm or activation, or group_size does not divide the hidden
            channels.
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
        hidden: int | None = None,
        kernel: int = 3,
        stride: int = 1,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        hidden = channels * expansion if hidden is None else hidden
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {tuple(ACTIVATIONS)}, got {activation!r}")
        spatial = (
            DepthwiseConv(hidden, ndim=ndim, kernel=kernel)
            if group_size == stride == 1
            else group_convolution(ndim, hidden, kernel, group_size, stride=stride, bias=False)
        )

        def normed() -> list[nn.Module]:
            layer = normalisation(norm, ndim, hidden)
            return [layer] if norm == "evonorm" else [layer, ACTIVATIONS[activation]()]

        expand = convolution(ndim, channels, hidden, 1, bias=False)
        layers: list[nn.Module] = [expand, *normed(), spatial, *normed()]
        if attention == "se":
            layers.append(SqueezeExcite(hidden, reduction=4 * expansion))
        elif attention == "hard_se":
            squeezed = make_divisible(hidden // 4)
            layers.append(SqueezeExcite(hidden, hidden=squeezed, hard=True))
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
        """(B, channels, *size) -> (B, out_channels, *size / stride)."""
        found: Tensor = self.layers(x)
        return found


def make_divisible(width: float, divisor: int = 8) -> int:
    """The multiple of divisor nearest to a width, halves up, never under 0.9 of it.

    Source: arXiv 1801.04381, whose published networks have widths by this rule.
    """
    found = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return found if found >= 0.9 * width else found + divisor
