# SPDX-License-Identifier: Apache-2.0
"""PEM: a fixed number of queries, each of which finds one building, or none.

Cavagnero et al. 2024, "PEM: Prototype-based Efficient MaskFormer for Image Segmentation"
(arXiv 2402.19422): a query attends to the one token most like it, its prototype, instead of to a
softmax over all of them. Tensors bear the names of the published network, so that its checkpoints
fit.

What differs, unless `compat="published"`: a query whose mask is empty may look everywhere. As
published it may only where no query of the image has a mask; else it is given the first token.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pem_pixels import PixelDecoder

PUBLISHED = "published"


class Found(NamedTuple):
    """What queries say of images.

    Attributes:
        classes: (B, Q, K + 1) logits; the last class is none.
        masks: (B, Q, h, w) logits at stride 4.
    """

    classes: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Sizes:
    """Of the network; these are small, for one class and processors without a GPU.

    The published ones: width 128, mask width 256, hidden 256, 8 heads, inner 2048, 6 layers, 100
    queries.
    """

    width: int = 64
    mask_width: int = 64
    hidden: int = 128
    heads: int = 8
    inner: int = 512
    layers: int = 3
    queries: int = 100
    classes: int = 1


class _Tokens(nn.Module):
    """A level's map made ready to be compared: norm, depthwise 3x3, linear."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(hidden)
        self.to_query_3x3 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(self.to_query_3x3(self.bn(x)).flatten(2).transpose(1, 2))
        return found


class PrototypeAttention(nn.Module):
    """Each query takes, in each head, the one token most like it. O(tokens x queries), no softmax.

    The norm runs over the queries (section 3.2), so an answer depends on how many there are.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.feature_proj = _Tokens(hidden)
        self.query_proj = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden))
        self.proj, self.final = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.alpha = nn.Parameter(torch.ones(1, 1, hidden))

    def forward(self, x: Tensor, place: Tensor, level: Tensor, masked: Tensor) -> Tensor:
        """Queries and their places (B, Q, C), a level with positions (B, C, h, w), masked
        (B, Q, h w) bool -> (B, Q, C)."""
        tokens = F.normalize(self.feature_proj(level), dim=-1)
        query = F.normalize(self.query_proj(x + place), dim=-1)
        mine, asked = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (tokens, query)
        )
        index = self.chosen(mine, asked, masked)[..., None].expand(-1, -1, -1, mine.shape[-1])
        prototype = mine.gather(2, index).transpose(1, 2).flatten(2)
        mixed = F.normalize(self.proj(prototype * query), dim=1)
        found: Tensor = x + self.final(mixed * self.alpha + prototype)
        return found

    def chosen(self, tokens: Tensor, query: Tensor, masked: Tensor) -> Tensor:
        """(B, heads, N, c) and (B, heads, Q, c) -> (B, heads, Q), which token."""
        with torch.no_grad():
            likeness = query @ tokens.transpose(-1, -2)
            return likeness.masked_fill_(masked[:, None], -math.inf).argmax(dim=-1)


class _SelfAttention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.self_attn = nn.MultiheadAttention(hidden, heads, batch_first=True)

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        normed = self.norm(x)
        key = normed + place
        found: Tensor = x + self.self_attn(key, key, normed, need_weights=False)[0]
        return found


class _FeedForward(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.linear1, self.linear2 = nn.Linear(hidden, inner), nn.Linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.linear2(F.relu(self.linear1(self.norm(x))))
        return found


class _MaskVector(nn.Module):
    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()
        widths = (hidden, hidden, hidden, outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        found: Tensor = self.layers[-1](x)
        return found


class QueryDecoder(nn.Module):
    """Queries refined level by level: prototype attention, self-attention, feed-forward.

    Args:
        inputs: channels of the levels.
        compat: `published` leaves queries with empty masks as published.
    """

    def __init__(self, inputs: int, sizes: Sizes, compat: str | None = None) -> None:
        super().__init__()
        if compat not in (None, PUBLISHED):
            raise ValueError(f"compat must be None or {PUBLISHED!r}, got {compat!r}")
        self.compat, hidden, count = compat, sizes.hidden, range(sizes.layers)
        self.input_proj = nn.ModuleList(nn.Conv2d(inputs, hidden, 1) for _ in range(3))
        self.level_embed = nn.Embedding(3, hidden)
        self.query_feat = nn.Embedding(sizes.queries, hidden)
        self.query_embed = nn.Embedding(sizes.queries, hidden)
        self.transformer_cross_attention_layers = nn.ModuleList(
            PrototypeAttention(hidden, sizes.heads) for _ in count
        )
        self.transformer_self_attention_layers = nn.ModuleList(
            _SelfAttention(hidden, sizes.heads) for _ in count
        )
        self.transformer_ffn_layers = nn.ModuleList(
            _FeedForward(hidden, sizes.inner) for _ in count
        )
        self.decoder_norm = nn.LayerNorm(hidden)
        self.class_embed = nn.Linear(hidden, sizes.classes + 1)
        self.mask_embed = _MaskVector(hidden, sizes.mask_width)

    def forward(self, levels: Sequence[Tensor], mask_features: Tensor) -> list[Found]:
        """Maps coarse to fine (B, C, h, w), and those masks are made of -> before the first layer
        and after each."""
        batch = mask_features.shape[0]
        x, place = (
            part.weight[None].expand(batch, -1, -1) for part in (self.query_feat, self.query_embed)
        )
        maps = [project(level) for project, level in zip(self.input_proj, levels, strict=True)]
        maps = [
            level + embedding[:, None, None] + sine_positions(level)
            for level, embedding in zip(maps, self.level_embed.weight, strict=True)
        ]
        found = [self._said(x, mask_features)]
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for number, (attend, exchange, feed) in enumerate(layers):
            level = maps[number % len(maps)]
            masked = self.masked(found[-1].masks, level.shape[-2:])
            x = feed(exchange(attend(x, place, level, masked), place))
            found.append(self._said(x, mask_features))
        return found

    def _said(self, x: Tensor, mask_features: Tensor) -> Found:
        normed = self.decoder_norm(x)
        vectors = self.mask_embed(normed)
        masks = torch.einsum("bqc,bchw->bqhw", vectors, mask_features)
        return Found(self.class_embed(normed), masks)

    def masked(self, masks: Tensor, size: Sequence[int]) -> Tensor:
        """Mask logits (B, Q, h, w) -> which tokens of a level a query does not see, (B, Q, N)."""
        with torch.no_grad():
            resized = F.interpolate(masks.float(), size=tuple(size), mode="bilinear")
            hidden = (resized < 0).flatten(2)
            blind = hidden.all(dim=2, keepdim=True)
            if self.compat == PUBLISHED:
                blind = blind.all(dim=1, keepdim=True)
            return hidden & ~blind


class PEM(nn.Module):
    """Pixel decoder and queries on an encoder's features.

    Args:
        channels: of the encoder's features at strides 4, 8, 16, 32.
    """

    def __init__(
        self, channels: Sequence[int], sizes: Sizes | None = None, compat: str | None = None
    ) -> None:
        super().__init__()
        sizes = sizes or Sizes()
        self.pixels = PixelDecoder(channels, sizes.width, sizes.mask_width)
        self.queries = QueryDecoder(sizes.width, sizes, compat)

    def forward(self, features: Sequence[Tensor]) -> list[Found]:
        """(B, C, h, w) features, finest first -> before the first layer and after each."""
        mask_features, levels = self.pixels(features)
        found: list[Found] = self.queries(levels, mask_features)
        return found


def sine_positions(like: Tensor) -> Tensor:
    """(1, C, h, w) positions as sines and cosines, the first half down, the second across.

    Vaswani et al. (arXiv 1706.03762), on counts from 1 scaled to 2 pi, as in DETR (arXiv
    2005.12872).
    """
    _, channels, *size = like.shape
    half = channels // 2
    steps = torch.arange(half, device=like.device)
    wavelength = 10000 ** (2 * (steps // 2) / half)
    parts = []
    for axis, length in enumerate(size):
        count = torch.arange(1, length + 1, device=like.device, dtype=torch.float32)
        angle = (count / (length + 1e-6) * 2 * math.pi)[:, None] / wavelength
        waves = torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)
        shape = (half, length, 1) if axis == 0 else (half, 1, length)
        parts.append(waves.T.reshape(shape).expand(half, *size))
    return torch.cat(parts)[None].to(like.dtype)
