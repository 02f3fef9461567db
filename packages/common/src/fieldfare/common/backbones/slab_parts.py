# SPDX-License-Identifier: Apache-2.0
"""What the SLAB networks share: their transformer block, its attentions, published names.

Source: SLAB: Efficient Transformers with Simplified Linear Attention and Progressive
Re-parameterized Batch Normalization, Guo et al. 2024 (arXiv 2405.11582).
"""

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from ..blocks.linear_attention import LinearAttention
from ..blocks.prepbn import fold

MASKED = -100.0  # added before the softmax, as in Swin


class MapAttention(LinearAttention):
    """Simplified linear attention over the whole of a map, whose size is that it was built for."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        return super().forward(x.flatten(1, 2)).view(x.shape)


class ShiftedWindowAttention(WindowAttention):
    """Softmax attention within windows, with a bias by relative position, as in Swin.

    Windows that stick out of the map see the part of them that lies in it.

    Args:
        channels: of input and output.
        heads: divides channels.
        size: (H, W) of the map.
        window: side of a window; the map's where that is smaller.
        shift: by how much the windows are moved; not where one window holds the map.

    Source: Swin Transformer, Liu et al. 2021 (arXiv 2103.14030).
    """

    mask: Tensor | None

    def __init__(
        self, channels: int, heads: int, size: tuple[int, int], window: int, shift: int
    ) -> None:
        sides = (min(window, size[0]), min(window, size[1]))
        super().__init__(channels, heads, window_size=sides)
        self.shifts = tuple(
            shift if side < extent else 0 for side, extent in zip(sides, size, strict=True)
        )
        self.pads = tuple(-extent % side for side, extent in zip(sides, size, strict=True))
        masked = any(self.shifts) or any(self.pads)
        self.register_buffer("mask", self._mask(size) if masked else None, False)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, H, W, C) -> the same shape."""
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 0, self.pads[1], 0, self.pads[0]))
        moved = torch.roll(padded, [-shift for shift in self.shifts], (1, 2))
        windows = super().forward(self._cut(moved), self.mask)
        high, wide = self.window_size
        found = windows.view(
            -1, moved.shape[1] // high, moved.shape[2] // wide, high, wide, x.shape[3]
        )
        found = found.transpose(2, 3).reshape(moved.shape)
        return torch.roll(found, self.shifts, (1, 2))[:, :height, :width]

    def _cut(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B * windows, positions of a window, C)."""
        high, wide = self.window_size
        x = x.unflatten(2, (-1, wide)).unflatten(1, (-1, high)).transpose(2, 3)
        return x.flatten(0, 2).flatten(1, 2)

    def _mask(self, size: tuple[int, int]) -> Tensor:
        """(windows, N, N): MASKED between positions that rolling or padding made neighbours."""
        kinds = []
        for extent, pad, shift in zip(size, self.pads, self.shifts, strict=True):
            source = torch.arange(extent + pad) + shift
            wrapped, padding = source >= extent + pad, source % (extent + pad) >= extent
            kinds.append(wrapped + 2 * padding)
        regions = (4 * kinds[0][:, None] + kinds[1])[None, :, :, None]
        ids = self._cut(regions)[..., 0]
        return (ids[:, :, None] != ids[:, None, :]) * MASKED


class Block(nn.Module):
    """Attention and a two-layer perceptron, each added to what it normalises.

    Args:
        channels: of input and output.
        attention: (B, H, W, C) -> the same shape; a linear layer `qkv` comes first in it.
        norm: builds a norm of so many channels.
        mlp_ratio: width of the perceptron over channels.
        drop_path: of both branches.
    """

    def __init__(
        self,
        channels: int,
        attention: MapAttention | ShiftedWindowAttention,
        norm: Callable[[int], nn.Module],
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1: nn.Module = norm(channels)
        self.attn = attention
        self.norm2: nn.Module = norm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        found: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return found

    def reparameterize(self) -> None:
        """Fold the norms into the linear layers behind them; the function stays."""
        self.norm1 = fold(self.norm1, self.attn.qkv)
        self.norm2 = fold(self.norm2, self.mlp.fc1)


def check_size(x: Tensor, size: tuple[int, int]) -> None:
    """Raise ValueError where x, (B, C, H, W), is not of the size the network was built for."""
    if tuple(x.shape[2:]) != size:
        raise ValueError(
            f"an image of {tuple(x.shape[2:])}: this network was built for {size}; give img_size"
        )


UNUSED = r"(^cls_token|\.(iter|warm|total_step|relative_position_index|attn_mask))$"
PUBLISHED = (
    (r"\.norm1\.(weight|bias)$", r".layer.\1"),
    (r"\.norm2\.bn\.", ".batch.norm."),
    (r"\.norm2\.alpha$", ".batch.alpha"),
    (r"\.dwc\.", ".local."),
    (r"\.positional_encoding$", ".position"),
    (r"^patch_embed\.", "stem."),
    (r"^pos_embed$", "stem.position"),
)


def from_published(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Tensors of a published checkpoint by the names of these modules.

    Its counters of steps, what follows from the window's size and a class token that is never read
    are left out, as are its layer norms where the model has none; the stages' downsampling moves to
    the stage behind.
    """
    expected, found = model.state_dict().keys(), {}
    for name, tensor in state.items():
        if re.search(UNUSED, name):
            continue
        for pattern, ours in PUBLISHED:
            name = re.sub(pattern, ours, name)
        if match := re.match(r"layers\.(\d+)\.downsample\.(.*)", name):
            name = f"layers.{int(match[1]) + 1}.downsample.{match[2]}"
        if name in expected or ".layer." not in name:
            found[name] = tensor
    return found


def initialise(module: nn.Module) -> None:
    """Linear layers as published: truncated normal weights, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def configuration() -> dict[str, object]:
    """Of both networks, as timm keeps it."""
    return {
        "input_size": (3, 224, 224),
        "fixed_input_size": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "num_classes": 1000,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "first_conv": "stem.proj",
        "classifier": "head",
    }
