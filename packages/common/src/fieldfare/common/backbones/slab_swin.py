# SPDX-License-Identifier: Apache-2.0
"""SLAB-Swin: a Swin transformer whose first stages see the whole map by linear attention.

Source: SLAB: Efficient Transformers with Simplified Linear Attention and Progressive
Re-parameterized Batch Normalization, Guo et al. 2024 (arXiv 2405.11582).

A network is built for one size of image. With `norm_steps` its norms begin as layer norms and end
as batch norms (`training.fit` counts the steps); batch norms fold away by `blocks.fuse.fuse`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..blocks.prepbn import PRepBN, RepBN, fold
from .slab_parts import (
    Block,
    MapAttention,
    ShiftedWindowAttention,
    check_size,
    configuration,
    from_published,
    initialise,
)


class Stem(nn.Module):
    """Patches by one convolution, normalised."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch: int,
        size: tuple[int, int],
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.size = size
        self.proj = nn.Conv2d(in_channels, channels, patch, patch)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H / patch, W / patch, channels)."""
        check_size(x, self.size)
        found: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return found

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Fold the norm into the convolution before it."""
        if not isinstance(self.norm, PRepBN | RepBN):
            return
        affine = self.norm.fuse()
        assert self.proj.bias is not None
        self.proj.weight.mul_(affine.scale[:, None, None, None])
        self.proj.bias.mul_(affine.scale).add_(affine.shift)
        self.norm = nn.Identity()


class PatchMerging(nn.Module):
    """Half the size: the four positions of each 2 x 2 side by side, normalised, then mixed."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = norm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H / 2, W / 2, 2 C)."""
        # Columns change slowest: (0, 0), (1, 0), (0, 1), (1, 1) by row and column.
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)
        found: Tensor = self.reduction(self.norm(x))
        return found

    def reparameterize(self) -> None:
        """Fold the norm into the linear layer behind it."""
        self.norm = fold(self.norm, self.reduction)


class Stage(nn.Module):
    """Merging of patches (all but the first stage), then blocks."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        found: Tensor = self.blocks(self.downsample(x))
        return found


class SlabSwin(nn.Module):
    """Stages at strides patch, 2 patch, ..., a norm, mean pooling, a linear classifier.

    Args:
        img_size: of the input, one number or (H, W), a multiple of the last stage's stride.
        patch: side of a patch.
        width: channels of the first stage; they double from stage to stage.
        depths, heads: blocks of each stage, and heads of their attention.
        linear: whether the attention of a stage is linear, over its whole map; else that of
            windows, shifted in every second block.
        window: side of a window.
        in_chans: input channels.
        num_classes: 0 for pooled features.
        drop_rate: dropout before the classifier.
        drop_path_rate: of the last block; it rises evenly from 0 in the first.
        norm_steps: optimiser steps from layer norms to batch norms; 0 has batch norms alone.

    Raises:
        ValueError: the image is no multiple of the last stride.
    """

    output_fmt = "NHWC"  # of the features, for timm

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch: int = 4,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        linear: Sequence[bool] = (True, True, False, False),
        window: int = 7,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_steps: int = 0,
    ) -> None:
        super().__init__()
        size = to_2tuple(img_size)
        last = patch << (len(depths) - 1)
        if size[0] % last or size[1] % last:
            raise ValueError(f"img_size {size}: must be multiples of {last}")
        self.in_chans, self.drop_rate = in_chans, drop_rate
        norm = partial(PRepBN, steps=norm_steps)
        self.stem = Stem(in_chans, width, patch, size, norm)
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        self.layers = nn.Sequential()
        self.feature_info = []
        for index, depth in enumerate(depths):
            channels, reduction = width << index, patch << index
            grid = (size[0] // reduction, size[1] // reduction)
            attentions = [
                MapAttention(channels, heads[index], grid)
                if linear[index]
                else ShiftedWindowAttention(
                    channels, heads[index], grid, window, window // 2 if block % 2 else 0
                )
                for block in range(depth)
            ]
            blocks = [Block(channels, a, norm, drop_path=next(rates)) for a in attentions]
            merge = PatchMerging(channels // 2, norm) if index else nn.Identity()
            self.layers.append(Stage(merge, blocks))
            module = f"layers.{index}"
            self.feature_info.append(
                {"num_chs": channels, "reduction": reduction, "module": module}
            )
        self.num_features = self.head_hidden_size = channels
        self.norm = norm(channels)
        self.drop = nn.Dropout(drop_rate)
        self.apply(initialise)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The linear classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier (none: 0) in; only mean pooling is offered."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool {global_pool!r}: SLAB-Swin pools by 'avg' only")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head.apply(initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, h, w, num_features), normalised."""
        found: Tensor = self.norm(self.layers(self.stem(x)))
        return found

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, h, w, num_features) -> (B, classes), or the mean over space with pre_logits."""
        x = self.drop(x.mean((1, 2)))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of the size it was built for -> (B, classes) logits."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs({"slab_swin_tiny": configuration()})


@register_model
def slab_swin_tiny(pretrained: bool = False, **options: Any) -> nn.Module:
    """SLAB-Swin-T: 29.2 M parameters, 4.48 G multiply-accumulates at 224."""
    return build_model_with_cfg(
        SlabSwin,
        "slab_swin_tiny",
        pretrained,
        pretrained_filter_fn=from_published,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        **options,
    )
