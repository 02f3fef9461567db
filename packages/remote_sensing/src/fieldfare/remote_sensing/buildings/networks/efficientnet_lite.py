# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite as an encoder, without the seconds that importing timm takes.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(arXiv 1905.11946), without squeeze-and-excitation and with ReLU6: TensorFlow's EfficientNet-Lite.
Layers, names, first weights of a seed and results are those of timm's `tf_efficientnet_lite0` to
`lite2`.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fieldfare.common.encoders import Encoder

VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "tf_efficientnet_lite0": ((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
    "tf_efficientnet_lite1": ((16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)),
    "tf_efficientnet_lite2": ((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
}
"""Width of each stage and its number of blocks."""

KERNELS = (3, 3, 5, 3, 5, 5, 3)
STEPS = (1, 2, 2, 2, 1, 2, 1)
"""Stride of each stage's first block."""

Counts = Sequence[int]
"""One number for each stage."""

STEM = 32
EXPANSION = 6
EPS = 1e-3

FEATURES = (0, 1, 2, 4, 6)
"""Stages whose output is a feature: the last ones at strides 2, 4, 8, 16 and 32."""


class SameConv2d(nn.Conv2d):
    """A convolution padded with zeros as TensorFlow's SAME: more at the right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        around: list[int] = []
        for size, kernel, step in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            missing = max((math.ceil(size / step) - 1) * step + kernel - size, 0)
            around += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, around))


def _convolution(inputs: int, outputs: int, kernel: int, step: int, groups: int = 1) -> nn.Conv2d:
    if step == 1:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return SameConv2d(inputs, outputs, kernel, stride=step, groups=groups, bias=False)


class _Separable(nn.Module):
    """A depthwise convolution and a pointwise one."""

    def __init__(self, inputs: int, outputs: int, kernel: int, step: int) -> None:
        super().__init__()
        self.conv_dw = _convolution(inputs, inputs, kernel, step, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs, eps=EPS)
        self.conv_pw = _convolution(inputs, outputs, 1, 1)
        self.bn2 = nn.BatchNorm2d(outputs, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        x = self.bn2(self.conv_pw(x))
        return x


class _InvertedResidual(nn.Module):
    """Widened, convolved in depth, narrowed, and added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, step: int) -> None:
        super().__init__()
        inside = inputs * EXPANSION
        self.skips = step == 1 and inputs == outputs
        self.conv_pw = _convolution(inputs, inside, 1, 1)
        self.bn1 = nn.BatchNorm2d(inside, eps=EPS)
        self.conv_dw = _convolution(inside, inside, kernel, step, groups=inside)
        self.bn2 = nn.BatchNorm2d(inside, eps=EPS)
        self.conv_pwl = _convolution(inside, outputs, 1, 1)
        self.bn3 = nn.BatchNorm2d(outputs, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        wide = F.relu6(self.bn2(self.conv_dw(wide)), inplace=True)
        narrow: Tensor = self.bn3(self.conv_pwl(wide))
        return narrow + x if self.skips else narrow


class _Stages(nn.Module):
    """The stem and the stages that some features need."""

    def __init__(
        self, name: str, in_channels: int, features: int, blocks: Counts, kernels: Counts
    ) -> None:
        super().__init__()
        self.conv_stem = _convolution(in_channels, STEM, 3, 2)
        self.bn1 = nn.BatchNorm2d(STEM, eps=EPS)
        for _ in range(2):
            nn.Conv2d(8, 8, 1)  # timm tries a layer here; so a seed gives the same weights
        stages, inputs = [], STEM
        last = FEATURES[features - 1]
        for number, width in enumerate(VARIANTS[name][0][: last + 1]):
            block = _InvertedResidual if number else _Separable
            stage = []
            for step in (STEPS[number], *[1] * (blocks[number] - 1)):
                stage.append(block(inputs, width, kernels[number], step))
                inputs = width
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.bn1(self.conv_stem(x)), inplace=True)
        found = []
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in FEATURES:
                found.append(x)
        return found


class EfficientNetLite(Encoder):
    """Features at strides 2, 4, 8, 16 and 32; parameters are named as `create_encoder` names them.

    Args:
        name: a key of `VARIANTS`.
        in_channels: channels of the input.
        features: how many features to give, finest first; what only later ones need is not built.
        blocks, kernels: of each stage, at most its own; empty for its own.

    Raises:
        ValueError: not so many stages, or more blocks or larger kernels than a stage's own.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        features: int = len(FEATURES),
        *,
        blocks: Counts = (),
        kernels: Counts = (),
    ) -> None:
        super().__init__()
        widths, counts = VARIANTS[name]
        for what, given, own in (("blocks", blocks, counts), ("kernels", kernels, KERNELS)):
            whole = not given or len(given) == len(own)
            if not whole or any(not 1 <= a <= b for a, b in zip(given, own, strict=False)):
                raise ValueError(f"{name}: its stages have {what} {own}, not {tuple(given)}")
        self.model = _Stages(name, in_channels, features, blocks or counts, kernels or KERNELS)
        self.channels = tuple(widths[stage] for stage in FEATURES[:features])
        self.strides = (2, 4, 8, 16, 32)[:features]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> one (B, channels[i], ceil(H / strides[i]), ...) a scale."""
        features: list[Tensor] = self.model(x)
        return features
