# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2 in one, two or three dimensions, as an encoder.

Source: MobileNetV2: Inverted Residuals and Linear Bottlenecks, Sandler et al. 2018
(arXiv 1801.04381), table 2. In two dimensions it is timm's model of the same name up to its last
feature, weight for weight (a test holds it to that); the other dimensions change the convolutions
and norms, nothing else.
"""

from torch import Tensor, nn

from ..encoders.base import Encoder, register_nd_encoder

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

# Expansion, channels, repeats, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Widen by a 1-wide convolution, filter each channel 3-wide, narrow without activation.

    The input is added where the shape allows (stride 1, as many channels out as in).
    """

    def __init__(
        self, ndim: int, in_channels: int, out_channels: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential()
        if expansion > 1:
            self.layers.extend(_conv_norm(ndim, in_channels, width, 1, act=True))
        self.layers.extend(_conv_norm(ndim, width, width, 3, stride, groups=width, act=True))
        self.layers.extend(_conv_norm(ndim, width, out_channels, 1, act=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, C', *ceil(size / stride))."""
        found: Tensor = x + self.layers(x) if self.residual else self.layers(x)
        return found


class MobileNetV2Encoder(Encoder):
    """Features at strides 2, 4, 8, 16, 32; sizes are ceil(size / stride) along every axis.

    Args:
        in_channels: channels of the input.
        ndim: 1, 2 or 3.
        width: multiplies every channel count, rounded to a multiple of 8.
    """

    def __init__(self, in_channels: int, ndim: int, width: float = 1.0) -> None:
        super().__init__()
        channels, stride = _round_channels(32 * width), 2
        self.stem = nn.Sequential(*_conv_norm(ndim, in_channels, channels, 3, 2, act=True))
        self.stages = nn.ModuleList()
        last: dict[int, tuple[int, int]] = {}
        for index, (expansion, base, repeats, step) in enumerate(STAGES):
            stage = nn.Sequential()
            for repeat in range(repeats):
                out = _round_channels(base * width)
                first = step if repeat == 0 else 1
                stage.append(InvertedResidual(ndim, channels, out, first, expansion))
                channels = out
            self.stages.append(stage)
            stride *= step
            last[stride] = (index, channels)
        self._feature_stages = tuple(index for index, _ in last.values())
        self.channels = tuple(count for _, count in last.values())
        self.strides = tuple(last)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *size) -> five features (B, channels[i], *ceil(size / strides[i]))."""
        features = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self._feature_stages:
                features.append(x)
        return features


def _conv_norm(
    ndim: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    act: bool,
) -> list[nn.Module]:
    conv = CONV[ndim - 1](
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    # He initialisation by fan-out, as the 2-D networks of this family are trained from.
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    norm = NORM[ndim - 1](out_channels)
    return [conv, norm, nn.ReLU6(inplace=True)] if act else [conv, norm]


def _round_channels(count: float) -> int:
    """The nearest multiple of 8, at least 8, and no more than 10 % below count."""
    rounded = max(8, int(count + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count else rounded


@register_nd_encoder
def mobilenetv2_050(in_channels: int, ndim: int) -> MobileNetV2Encoder:
    """MobileNetV2 at half width."""
    return MobileNetV2Encoder(in_channels, ndim, 0.5)


@register_nd_encoder
def mobilenetv2_100(in_channels: int, ndim: int) -> MobileNetV2Encoder:
    """MobileNetV2 at full width."""
    return MobileNetV2Encoder(in_channels, ndim, 1.0)
