# SPDX-License-Identifier: Apache-2.0
"""SimpleNet: thirteen plain convolutions, each with batch norm and ReLU, and a few poolings.

Source: Lets keep it simple, Using simple architectures to outperform deeper and more complex
architectures, Hasanpour et al. 2016 (arXiv 1608.06037), with the widths, strides and poolings of
its published ImageNet models: max pooling after the 6th and the 10th convolution.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

WIDTHS_5M = (64, *[128] * 5, *[256] * 3, 512, 2048, 256, 256)
WIDTHS_9M = (128, *[192] * 5, *[320] * 3, 640, 2560, 320, 320)
KERNELS = (*[3] * 10, 1, 1, 3)
POOLED = (6, 10)  # layers, from 0, with a max pooling before them
STRIDED = {"m1": (0, 1, 2), "m2": (0, 1, 3)}  # layers whose convolution has stride 2


class SimpleLayer(nn.Module):
    """Max pooling (some layers), convolution, batch norm, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, pool: int
    ) -> None:
        super().__init__()
        self.pool = nn.Identity() if pool == 1 else nn.MaxPool2d(pool)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)
        self.norm = nn.BatchNorm2d(out_channels, momentum=0.05)
        nn.init.xavier_uniform_(self.conv.weight, gain=nn.init.calculate_gain("relu"))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'): halved rounding up by stride, down by pooling."""
        return F.relu(self.norm(self.conv(self.pool(x))))


class SimpleNet(nn.Module):
    """The thirteen layers, global pooling, dropout, a linear classifier.

    Args:
        widths: channels after each of the thirteen layers.
        mode: m1 or m2, where the early strides stand; m2 keeps more resolution.
        in_chans: input channels.
        num_classes: 0 for pooled features.
        global_pool: max (the paper's) or another of timm's poolings.
        drop_rate: dropout before the classifier.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        mode: str,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "max",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_chans, self.drop_rate = in_chans, drop_rate
        self.num_features = self.head_hidden_size = widths[-1]
        self.layers = nn.Sequential()
        last: dict[int, dict[str, int | str]] = {}
        reduction, channels = 1, in_chans
        for index, (width, kernel) in enumerate(zip(widths, KERNELS, strict=True)):
            stride = 2 if index in STRIDED[mode] else 1
            pool = 2 if index in POOLED else 1
            self.layers.append(SimpleLayer(channels, width, kernel, stride, pool))
            reduction, channels = reduction * stride * pool, width
            module = f"layers.{index}"
            last[reduction] = {"num_chs": width, "reduction": reduction, "module": module}
        self.feature_info = list(last.values())
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def get_classifier(self) -> nn.Module:
        """The linear classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier (none: 0) in, and another pooling if one is named."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=True)
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_features, H / 32, W / 32)."""
        found: Tensor = self.layers(x)
        return found

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, h, w) -> (B, classes), or the pooled features with pre_logits."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), H and W at least 32 -> (B, classes) logits."""
        return self.forward_head(self.forward_features(x))


def _scaled(factor: float) -> tuple[int, ...]:
    return tuple(int(width * factor) for width in WIDTHS_5M)


VARIANTS = {
    "simplenet_small_05": _scaled(0.5),
    "simplenet_small_075": _scaled(0.75),
    "simplenet_5m": WIDTHS_5M,
    "simplenet_9m": WIDTHS_9M,
}
default_cfgs = generate_default_cfgs(
    {
        f"{name}_{mode}": {
            "input_size": (3, 224, 224),
            "num_classes": 1000,
            "first_conv": "layers.0.conv",
            "classifier": "head",
        }
        for name in VARIANTS
        for mode in STRIDED
    }
)


def _create(name: str, mode: str, pretrained: bool, **options: Any) -> nn.Module:
    return build_model_with_cfg(
        SimpleNet,
        f"{name}_{mode}",
        pretrained,
        feature_cfg={"flatten_sequential": True},
        widths=VARIANTS[name],
        mode=mode,
        **options,
    )


@register_model
def simplenet_small_05_m1(pretrained: bool = False, **options: Any) -> nn.Module:
    """SimpleNet at half width: 1.51 M parameters, 341 M multiply-accumulates at 224."""
    return _create("simplenet_small_05", "m1", pretrained, **options)


@register_model
def simplenet_small_05_m2(pretrained: bool = False, **options: Any) -> nn.Module:
    """SimpleNet at half width: 1.51 M parameters, 428 M multiply-accumulates at 224."""
    return _create("simplenet_small_05", "m2", pretrained, **options)


@register_model
def simplenet_small_075_m1(pretrained: bool = False, **options: Any) -> nn.Module:
    """SimpleNet at three quarters of the width: 3.29 M parameters."""
    return _create("simplenet_small_075", "m1", pretrained, **options)


@register_model
def simplenet_small_075_m2(pretrained: bool = False, **options: Any) -> nn.Module:
    """SimpleNet at three quarters of the width, more resolution: 3.29 M parameters."""
    return _create("simplenet_small_075", "m2", pretrained, **options)


@register_model
def simplenet_5m_m1(pretrained: bool = False, **options: Any) -> nn.Module:
    """SimpleNet: 5.75 M parameters."""
    return _create("simplenet_5m", "m1", pretrained, **options)


@register_model
def simplenet_5m_m2(pretrained: bool = False, **options: Any) -> nn.Module:
    """SimpleNet, more resolution: 5.75 M parameters."""
    return _create("simplenet_5m", "m2", pretrained, **options)


@register_model
def simplenet_9m_m1(pretrained: bool = False, **options: Any) -> nn.Module:
    """SimpleNet, wider: 9.51 M parameters."""
    return _create("simplenet_9m", "m1", pretrained, **options)


@register_model
def simplenet_9m_m2(pretrained: bool = False, **options: Any) -> nn.Module:
    """SimpleNet, wider, more resolution: 9.51 M parameters."""
    return _create("simplenet_9m", "m2", pretrained, **options)
