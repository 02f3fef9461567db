# SPDX-License-Identifier: Apache-2.0
"""SLAB-DeiT: a plain vision transformer with linear attention and batch norms that fold.

Source: SLAB: Efficient Transformers with Simplified Linear Attention and Progressive
Re-parameterized Batch Normalization, Guo et al. 2024 (arXiv 2405.11582). No class token; all
positions are averaged before the classifier.

A network is built for one size of image. With `norm_steps` its norms begin as layer norms and end
as batch norms (`training.fit` counts the steps); batch norms fold away by `blocks.fuse.fuse`.
"""

from functools import partial
from typing import Any

import torch
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..blocks.prepbn import PRepBN
from .slab_parts import Block, MapAttention, check_size, configuration, from_published, initialise

LAYER_NORM_EPS = 1e-6


class Stem(nn.Module):
    """Patches by one convolution, plus an embedding of their positions."""

    def __init__(self, in_channels: int, channels: int, patch: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.grid = (size[0] // patch, size[1] // patch)
        self.proj = nn.Conv2d(in_channels, channels, patch, patch)
        self.position = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], channels))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H / patch, W / patch, channels)."""
        check_size(x, self.size)
        found: Tensor = self.proj(x).permute(0, 2, 3, 1) + self.position.unflatten(1, self.grid)
        return found


class SlabDeit(nn.Module):
    """Patches, equal blocks, a norm, mean pooling, a linear classifier.

    Args:
        width: channels.
        heads: of each attention.
        depth: blocks; a third of them, two thirds and all give the three features.
        mlp_ratio: width of the perceptrons over channels.
        img_size: of the input, one number or (H, W), a multiple of patch.
        patch: side of a patch.
        in_chans: input channels.
        num_classes: 0 for pooled features.
        drop_rate: dropout before the classifier.
        drop_path_rate: of the last block; it rises evenly from 0 in the first.
        norm_steps: optimiser steps from layer norms to batch norms; 0 has batch norms alone.

    Raises:
        ValueError: the image is no multiple of the patch.
    """

    output_fmt = "NHWC"  # of the features, for timm

    def __init__(
        self,
        width: int,
        heads: int,
        depth: int = 12,
        mlp_ratio: float = 4.0,
        img_size: int | tuple[int, int] = 224,
        patch: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_steps: int = 0,
    ) -> None:
        super().__init__()
        size = to_2tuple(img_size)
        if size[0] % patch or size[1] % patch:
            raise ValueError(f"img_size {size}: must be multiples of {patch}")
        self.in_chans, self.drop_rate = in_chans, drop_rate
        self.num_features = self.head_hidden_size = width
        norm = partial(PRepBN, steps=norm_steps, norm_eps=LAYER_NORM_EPS)
        self.stem = Stem(in_chans, width, patch, size)
        self.blocks = nn.Sequential(
            *(
                Block(width, MapAttention(width, heads, self.stem.grid), norm, mlp_ratio, rate)
                for rate in torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
            )
        )
        self.feature_info = [
            {"num_chs": width, "reduction": patch, "module": f"blocks.{depth * third // 3 - 1}"}
            for third in (1, 2, 3)
        ]
        self.norm = norm(width)
        self.drop = nn.Dropout(drop_rate)
        self.apply(initialise)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The linear classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier (none: 0) in; only mean pooling is offered."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool {global_pool!r}: SLAB-DeiT pools by 'avg' only")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head.apply(initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, h, w, num_features), normalised."""
        found: Tensor = self.norm(self.blocks(self.stem(x)))
        return found

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, h, w, num_features) -> (B, classes), or the mean over space with pre_logits."""
        x = self.drop(x.mean((1, 2)))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of the size it was built for -> (B, classes) logits."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {"slab_deit_tiny": configuration(), "slab_deit_small": configuration()}
)


def _create(name: str, pretrained: bool, **options: Any) -> nn.Module:
    return build_model_with_cfg(
        SlabDeit,
        name,
        pretrained,
        pretrained_filter_fn=from_published,
        feature_cfg={"out_indices": (0, 1, 2), "flatten_sequential": True},
        **options,
    )


@register_model
def slab_deit_tiny(pretrained: bool = False, **options: Any) -> nn.Module:
    """SLAB-DeiT-T: 6.19 M parameters, 1.14 G multiply-accumulates at 224."""
    return _create("slab_deit_tiny", pretrained, width=192, heads=3, **options)


@register_model
def slab_deit_small(pretrained: bool = False, **options: Any) -> nn.Module:
    """SLAB-DeiT-S: 23.0 M parameters, 4.36 G multiply-accumulates at 224."""
    return _create("slab_deit_small", pretrained, width=384, heads=6, **options)
