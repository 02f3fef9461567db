# SPDX-License-Identifier: Apache-2.0
"""EEEA-Net C1 and C2: mobile inverted bottlenecks with searched kernels and widths.

Source: EEEA-Net: An Early Exit Evolutionary Neural Architecture Search, Termritthikun et al. 2021
(arXiv 2108.06156). C1 and C2, the networks of its ImageNet results, are sub-networks of the
Once-for-All MobileNetV3 (Cai et al. 2020, arXiv 1908.09791) by the authors' published tables. The
cell networks of its CIFAR results are in `eeea_cells`.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from timm.layers import ConvNormAct, SelectAdaptivePool2d, SEModule, make_divisible
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn


class BlockShape(NamedTuple):
    """Sizes of one block; mid None has no expansion."""

    channels: int
    kernel: int
    mid: int | None
    stride: int
    activation: type[nn.Module]
    squeeze: bool


class Block(nn.Module):
    """Expand, filter each channel, weigh the channels (some blocks), project; shortcut if it fits.

    The input is added where the shape allows (stride 1, as many channels out as in).
    """

    def __init__(self, in_channels: int, shape: BlockShape) -> None:
        super().__init__()
        width = shape.mid or in_channels
        conv = partial(ConvNormAct, act_layer=shape.activation)
        self.expand = conv(in_channels, width, 1) if shape.mid else nn.Identity()
        self.depthwise = conv(width, width, shape.kernel, shape.stride, groups=width)
        self.se: nn.Module = nn.Identity()
        if shape.squeeze:
            hidden = make_divisible(width // 4, 8)  # type: ignore[no-untyped-call]
            self.se = SEModule(width, rd_channels=hidden, gate_layer="hard_sigmoid")
        self.project = ConvNormAct(width, shape.channels, 1, apply_act=False)
        self.residual = shape.stride == 1 and in_channels == shape.channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        found: Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return x + found if self.residual else found


class EEEANet(nn.Module):
    """A stem of stride 2, the blocks, a 1x1 layer, mean pooling, a hidden layer, a classifier.

    Args:
        shapes: of the blocks.
        stem: channels after the first convolution.
        last: channels before the pooling.
        hidden: width of the layer before the classifier.
        in_chans: input channels.
        num_classes: 0 for the hidden layer's features.
        drop_rate: dropout before the classifier.
    """

    def __init__(
        self,
        shapes: Sequence[BlockShape],
        stem: int = 16,
        last: int = 960,
        hidden: int = 1280,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_chans, self.drop_rate = in_chans, drop_rate
        self.num_features, self.head_hidden_size = last, hidden
        self.stem = ConvNormAct(in_chans, stem, 3, 2, act_layer=nn.Hardswish)
        self.blocks = nn.Sequential()
        ends: dict[int, dict[str, int | str]] = {}
        reduction, channels = 2, stem
        for index, shape in enumerate(shapes):
            self.blocks.append(Block(channels, shape))
            reduction, channels = reduction * shape.stride, shape.channels
            name = f"blocks.{index}"
            ends[reduction] = {"num_chs": channels, "reduction": reduction, "module": name}
        self.feature_info = list(ends.values())
        self.last = ConvNormAct(channels, last, 1, act_layer=nn.Hardswish)
        self.hidden = nn.Conv2d(last, hidden, 1, bias=False)
        self.act, self.drop = nn.Hardswish(), nn.Dropout(drop_rate)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.reset_classifier(num_classes, "avg")

    def get_classifier(self) -> nn.Module:
        """The linear classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier (none: 0) in, and another pooling if one is named."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
        self.head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_features, ceil(H / 32), ceil(W / 32))."""
        found: Tensor = self.last(self.blocks(self.stem(x)))
        return found

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, h, w) -> (B, classes), or the hidden layer with pre_logits."""
        x = self.drop(self.act(self.hidden(self.global_pool(x))).flatten(1))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes) logits."""
        return self.forward_head(self.forward_features(x))


PUBLISHED = (
    ("first_conv.", "stem."),
    ("final_expand_layer.", "last."),
    ("feature_mix_layer.conv.", "hidden."),
    ("classifier.linear.", "head."),
    ("mobile_inverted_conv.inverted_bottleneck.", "expand."),
    ("mobile_inverted_conv.depth_conv.se.fc.reduce.", "se.fc1."),
    ("mobile_inverted_conv.depth_conv.se.fc.expand.", "se.fc2."),
    ("mobile_inverted_conv.depth_conv.", "depthwise."),
    ("mobile_inverted_conv.point_linear.", "project."),
)


def from_published(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Tensors of a published checkpoint by the names of this module; other names stay."""
    found = {}
    for name, tensor in state.items():
        for theirs, ours in PUBLISHED:
            name = re.sub(rf"(^|\.){re.escape(theirs)}", rf"\g<1>{ours}", name)
        found[name] = tensor
    return found


# Channels, stride, activation, squeeze-and-excitation of each stage.
STAGES: tuple[tuple[int, int, type[nn.Module], bool], ...] = (
    (16, 1, nn.ReLU, False),
    (24, 2, nn.ReLU, False),
    (40, 2, nn.ReLU, True),
    (80, 2, nn.Hardswish, False),
    (112, 1, nn.Hardswish, True),
    (160, 2, nn.Hardswish, True),
)
# Kernel and middle width of each block of each stage, as the search found them.
SEARCHED: dict[str, tuple[tuple[tuple[int, int | None], ...], ...]] = {
    "eeea_net_c1": (
        ((3, None),),
        ((3, 48), (5, 72)),
        ((7, 72), (5, 120)),
        ((7, 120), (7, 320)),
        ((5, 320), (3, 448)),
        ((7, 672), (3, 640), (3, 960), (7, 480)),
    ),
    "eeea_net_c2": (
        ((3, None),),
        ((3, 48), (5, 96), (3, 72)),
        ((7, 96), (3, 120), (7, 120)),
        ((5, 240), (7, 480), (5, 240), (3, 240)),
        ((7, 480), (5, 448), (3, 336), (3, 336)),
        ((5, 672), (3, 960), (5, 960), (7, 480)),
    ),
}


def _shapes(name: str) -> list[BlockShape]:
    return [
        BlockShape(channels, kernel, mid, stride if place == 0 else 1, activation, squeeze)
        for (channels, stride, activation, squeeze), blocks in zip(
            STAGES, SEARCHED[name], strict=True
        )
        for place, (kernel, mid) in enumerate(blocks)
    ]


def _cfg() -> dict[str, object]:
    return {
        "input_size": (3, 224, 224),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "num_classes": 1000,
        "first_conv": "stem.conv",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs({name: _cfg() for name in SEARCHED})


def _create(name: str, pretrained: bool, **options: Any) -> nn.Module:
    return build_model_with_cfg(
        EEEANet,
        name,
        pretrained,
        pretrained_filter_fn=from_published,
        feature_cfg={"flatten_sequential": True},
        shapes=_shapes(name),
        **options,
    )


@register_model
def eeea_net_c1(pretrained: bool = False, **options: Any) -> nn.Module:
    """EEEA-Net-C1: 5.07 M parameters, 183 M multiply-accumulates at 224."""
    return _create("eeea_net_c1", pretrained, **options)


@register_model
def eeea_net_c2(pretrained: bool = False, **options: Any) -> nn.Module:
    """EEEA-Net-C2: 6.00 M parameters, 291 M multiply-accumulates at 224."""
    return _create("eeea_net_c2", pretrained, **options)
