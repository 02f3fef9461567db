# SPDX-License-Identifier: Apache-2.0
"""EfficientMod: a wide depthwise context modulates a projected value, attention in late stages.

Source: Efficient Modulation for Vision Networks, Ma et al. 2024 (arXiv 2403.19963).

The blocks work on (B, H, W, C), where their linear maps are plain matrix products; between stages
the maps are (B, C, H, W) in torch's channels-last memory, so that turning them copies nothing.
"""

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerNorm2d, Mlp
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

CONTEXT = 7  # kernel of the depthwise convolution
LAYER_SCALE = 1e-4
HEADS = 8
NARROWEST_HEAD = 32
NORM_EPS = 1e-5


class Modulation(nn.Module):
    """Value times context: both from the input by linear maps, the context seen 7 x 7 wide.

    Args:
        channels: of input and output.
        ratio: how many times wider the value is; 1 leaves out its GELU.
    """

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.context_in = nn.Linear(channels, channels)
        self.context = nn.Conv2d(channels, channels, CONTEXT, padding=CONTEXT // 2, groups=channels)
        self.context_out = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, ratio * channels)
        self.proj = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        context = self.context(self.context_in(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        context = self.context_out(F.gelu(context))
        value = self.value(x)
        if self.ratio > 1:
            # Channel j of the value takes channel j mod C of the context.
            value, context = F.gelu(value), context.repeat(1, 1, 1, self.ratio)
        found: Tensor = self.proj(value * context)
        return found


class ModulationBlock(nn.Module):
    """Modulation of the normalised input, scaled by channel, added to the input."""

    def __init__(self, channels: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.modulation = Modulation(channels, ratio)
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        found: Tensor = x + self.drop_path(self.gamma * self.modulation(self.norm(x)))
        return found


class Attention(nn.Module):
    """Attention of all positions on all, without positional encoding.

    Heads are at least 32 wide, so that all of them together are wider than few channels.
    """

    def __init__(self, channels: int, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        width = heads * max(channels // heads, NARROWEST_HEAD)
        self.qkv = nn.Linear(channels, 3 * width, bias=False)
        self.proj = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found: Tensor = self.proj(
            F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        )
        return found


class AttentionBlock(nn.Module):
    """Attention and a two-layer perceptron, each added to what it normalises."""

    def __init__(self, channels: int, mlp_ratio: int, drop_path: float, heads: int = HEADS) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.attn = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.mlp = Mlp(channels, mlp_ratio * channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        tokens = x.flatten(1, 2)
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        found: Tensor = tokens.reshape(x.shape)
        return found


class Stage(nn.Module):
    """Downsampling, then blocks that keep the size.

    Args:
        in_channels: of the input.
        kernel: of the downsampling convolution; the stride is half of it, rounded up.
        blocks: modulation and attention blocks.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel: int, blocks: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(
            in_channels, channels, kernel, (kernel + 1) // 2, padding=kernel // 2
        )
        self.norm = LayerNorm2d(channels, eps=NORM_EPS)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / s), ceil(W / s)), s the stride."""
        x = self.norm(self.downsample(x)).permute(0, 2, 3, 1)
        found: Tensor = self.blocks(x).permute(0, 3, 1, 2)
        return found


class EfficientMod(nn.Module):
    """Four stages at strides 4, 8, 16, 32, a norm, mean pooling, a linear classifier.

    Args:
        widths: channels of each stage.
        modulations: modulation blocks of each stage.
        attentions: attention blocks of each stage, after its modulation blocks.
        ratios: of the modulation blocks, in turn from the first of each stage.
        mlp_ratios: of the attention blocks of each stage.
        in_chans: input channels.
        num_classes: 0 for pooled features.
        drop_rate: dropout before the classifier.
        drop_path_rate: of the last block; it rises evenly from 0 in the first.
    """

    def __init__(
        self,
        widths: Sequence[int],
        modulations: Sequence[int],
        attentions: Sequence[int] = (0, 0, 0, 0),
        ratios: Sequence[int] = (1, 6),
        mlp_ratios: Sequence[int] = (4, 4, 4, 4),
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_chans, self.drop_rate = in_chans, drop_rate
        self.num_features = self.head_hidden_size = widths[-1]
        depths = [m + a for m, a in zip(modulations, attentions, strict=True)]
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        starts = accumulate(depths, initial=0)
        self.stages = nn.Sequential()
        self.feature_info = []
        channels = in_chans
        for index, (width, start) in enumerate(zip(widths, starts, strict=False)):
            blocks: list[nn.Module] = []
            for place, rate in enumerate(rates[start : start + depths[index]]):
                if place < modulations[index]:
                    blocks.append(ModulationBlock(width, ratios[place % len(ratios)], rate))
                else:
                    blocks.append(AttentionBlock(width, mlp_ratios[index], rate))
            self.stages.append(Stage(channels, width, 3 if index else 7, blocks))
            reduction, channels = 4 << index, width
            module = f"stages.{index}"
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": module})
        self.norm = LayerNorm2d(channels, eps=NORM_EPS)
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)
        self.apply(_initialise)

    def get_classifier(self) -> nn.Module:
        """The linear classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier (none: 0) in; only mean pooling is offered."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool {global_pool!r}: EfficientMod pools by 'avg' only")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head.apply(_initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_features, ceil(H / 32), ceil(W / 32)), normalised."""
        found: Tensor = self.norm(self.stages(x))
        return found

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, h, w) -> (B, classes), or the mean over space with pre_logits."""
        x = self.drop(x.mean((2, 3)))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes) logits."""
        return self.forward_head(self.forward_features(x))


def from_published(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Tensors of a published checkpoint by the names of this module; other names stay.

    The published network has its downsampling at the end of the stage before.
    """
    modulated = {name.removesuffix("gamma_1") for name in state if name.endswith("gamma_1")}
    found = {}
    for name, tensor in state.items():
        block = re.match(r"layers\.\d+\.blocks\.\d+\.|", name)
        if block and block[0] in modulated:
            name = name.replace(".mlp.fc1.", ".modulation.value.")
            name = name.replace(".mlp.fc2.", ".modulation.proj.")
        for pattern, ours in PUBLISHED:
            name = re.sub(pattern, ours, name)
        if match := re.match(r"layers\.(\d+)\.downsample\.(proj|norm)(.*)", name):
            part = {"proj": "downsample", "norm": "norm"}[match[2]]
            name = f"stages.{int(match[1]) + 1}.{part}{match[3]}"
        found[name] = tensor
    return found


PUBLISHED = (
    (r"^patch_embed\.proj", "stages.0.downsample"),
    (r"^patch_embed\.norm", "stages.0.norm"),
    (r"^layers\.(\d+)\.blocks", r"stages.\1.blocks"),
    (r"gamma_1$", "gamma"),
    (r"mlp\.context_layer\.f\.", "modulation.context_in."),
    (r"mlp\.context_layer\.g\.", "modulation.context_out."),
    (r"mlp\.context_layer\.context_list\.0\.", "modulation.context."),
)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _cfg() -> dict[str, object]:
    return {
        "input_size": (3, 224, 224),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "num_classes": 1000,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "first_conv": "stages.0.downsample",
        "classifier": "head",
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "efficientmod_xxs": {
        "widths": (32, 64, 128, 256),
        "modulations": (2, 2, 6, 2),
        "attentions": (0, 0, 1, 2),
    },
    "efficientmod_xs": {
        "widths": (32, 64, 144, 288),
        "modulations": (3, 3, 4, 2),
        "attentions": (0, 0, 3, 3),
        "ratios": (1, 4),
    },
    "efficientmod_s": {
        "widths": (32, 64, 144, 312),
        "modulations": (4, 4, 8, 4),
        "attentions": (0, 0, 4, 4),
        "mlp_ratios": (4, 4, 4, 5),
        "drop_path_rate": 0.02,
    },
    "efficientmod_s_conv": {
        "widths": (40, 80, 160, 344),
        "modulations": (4, 4, 12, 8),
        "drop_path_rate": 0.02,
    },
}
default_cfgs = generate_default_cfgs({name: _cfg() for name in VARIANTS})


def _create(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    return build_model_with_cfg(
        EfficientMod,
        name,
        pretrained,
        pretrained_filter_fn=from_published,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        **(VARIANTS[name] | options),
    )


@register_model
def efficientmod_xxs(pretrained: bool = False, **options: Any) -> nn.Module:
    """EfficientMod-xxs: 4.7 M parameters, 579 M multiply-accumulates at 224."""
    return _create("efficientmod_xxs", pretrained, options)


@register_model
def efficientmod_xs(pretrained: bool = False, **options: Any) -> nn.Module:
    """EfficientMod-xs: 6.6 M parameters, 773 M multiply-accumulates at 224."""
    return _create("efficientmod_xs", pretrained, options)


@register_model
def efficientmod_s(pretrained: bool = False, **options: Any) -> nn.Module:
    """EfficientMod-s: 12.9 M parameters, 1402 M multiply-accumulates at 224."""
    return _create("efficientmod_s", pretrained, options)


@register_model
def efficientmod_s_conv(pretrained: bool = False, **options: Any) -> nn.Module:
    """EfficientMod-s without attention: 12.9 M parameters, 1471 M multiply-accumulates at 224."""
    return _create("efficientmod_s_conv", pretrained, options)
