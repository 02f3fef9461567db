# SPDX-License-Identifier: Apache-2.0
"""EfficientTDNN: a network over sequences of any depth, width and kernels, and its elastic form.

Wang et al. 2022, *EfficientTDNN: Efficient Architecture Search for Speaker Recognition* (arXiv
2103.13581): blocks of 1x1, Res2 with dilation and squeeze-excite, each fed by the block before it
plus all that came before; what the blocks give is concatenated and pooled by attention. The full
space has 10021183582095 networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..blocks.attention import SqueezeExcite
from .genes import Choice, Space
from .network import ElasticNet
from .ops import Index

SCALE = 8
"""Groups of a Res2 layer."""
BOTTLENECK = 128
"""Hidden channels of the attention over time."""


@dataclass(frozen=True)
class Layout:
    """All that does not vary.

    Attributes:
        features: channels of the sequence.
        embedding: length of the result.
        width: largest number of channels, a multiple of 8.
        pooled: largest number of channels that are pooled.
        depth: most blocks.
    """

    features: int = 80
    embedding: int = 192
    width: int = 512
    pooled: int = 1536
    depth: int = 3


def space(
    layout: Layout,
    *,
    depths: Sequence[int] = (2, 3),
    widths: Sequence[int] = (128, 256, 384, 512),
    kernels: Sequence[int] = (1, 3, 5),
    pooled: Sequence[int] = (384, 768, 1152, 1536),
) -> Space:
    """Genes `depth`, `pooled`, and `width0`, `kernel0` of the stem, `width1` ... of the blocks.

    Raises:
        ValueError: the largest values are not those of the layout, or a width that 8 does not
            divide.
    """
    asked = max(depths), max(widths), max(pooled)
    if asked != (layout.depth, layout.width, layout.pooled):
        raise ValueError(f"largest depth, width and pooled {asked} are not those of the layout")
    if odd := [width for width in widths if width % SCALE]:
        raise ValueError(f"width {odd[0]} is no multiple of {SCALE}")
    genes: dict[str, tuple[int, ...]] = {"depth": tuple(sorted(depths))}
    needs: dict[str, tuple[str, tuple[int, ...]]] = {}
    for layer in range(layout.depth + 1):
        for gene, values in (("width", widths), ("kernel", kernels)):
            genes[f"{gene}{layer}"] = tuple(sorted(values))
            if layer > min(depths):
                deep = tuple(depth for depth in sorted(depths) if depth >= layer)
                needs[f"{gene}{layer}"] = ("depth", deep)
    return Space(genes | {"pooled": tuple(sorted(pooled))}, needs)


def _layer(channels: int, out_channels: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = (kernel - 1) // 2 * dilation
    return nn.Sequential(
        nn.Conv1d(channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False),
        nn.ReLU(),
        nn.BatchNorm1d(out_channels),
    )


class Res2Layer(nn.Module):
    """Groups of channels in a row, each convolved with what the one before gave, but the last."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        self.groups = nn.ModuleList(
            _layer(width, width, kernel, dilation) for _ in range(SCALE - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> the same shape."""
        parts = x.chunk(SCALE, dim=1)
        found = [self.groups[0](parts[0])]
        for group, part in zip(self.groups[1:], parts[1:-1], strict=True):
            found.append(group(part + found[-1]))
        return torch.cat((*found, parts[-1]), dim=1)


class AttentivePooling(nn.Module):
    """(B, C, T) -> (B, 2 C): means and deviations over time, weighted for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Conv1d(channels, BOTTLENECK, 1, bias=False),
            nn.Tanh(),
            nn.Conv1d(BOTTLENECK, channels, 1, bias=False),
            nn.Softmax(dim=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, 2 C)."""
        weights = self.weigh(x)
        mean = (weights * x).sum(dim=2)
        variance = (weights * x**2).sum(dim=2) - mean**2
        return torch.cat((mean, variance.clamp(min=1e-9).sqrt()), dim=1)


class TDNN(nn.Module):
    """(B, features, T) -> (B, embedding), any T.

    Args:
        choice: of `space`.
    """

    def __init__(self, choice: Choice, layout: Layout) -> None:
        super().__init__()
        width = choice.number("width0")
        depth, pooled = choice.number("depth"), choice.number("pooled")
        self.stem = _layer(layout.features, width, choice.number("kernel0"))
        self.blocks = nn.ModuleList()
        for layer in range(1, depth + 1):
            hidden, kernel = choice.number(f"width{layer}"), choice.number(f"kernel{layer}")
            self.blocks.append(
                nn.Sequential(
                    _layer(width, hidden),
                    Res2Layer(hidden, kernel, dilation=layer + 1),
                    _layer(hidden, width),
                    SqueezeExcite(width, reduction=4),
                )
            )
        self.mix = nn.Conv1d(width * depth, pooled, 1, bias=False)
        self.pool = AttentivePooling(pooled)
        self.head = nn.Sequential(
            nn.BatchNorm1d(2 * pooled),
            nn.Linear(2 * pooled, layout.embedding),
            nn.BatchNorm1d(layout.embedding),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, T) -> (B, embedding)."""
        x = total = self.stem(x)
        found = []
        for block in self.blocks:
            x = block(x) + total
            total = total + x
            found.append(x)
        pooled = self.pool(torch.relu(self.mix(torch.cat(found, dim=1))))
        embedding: Tensor = self.head(pooled)
        return embedding


def elastic_tdnn(genes: Space, layout: Layout) -> ElasticNet:
    """`TDNN` of any choice."""
    sides = {layer: genes.genes[f"kernel{layer}"] for layer in range(layout.depth + 1)}
    kernels = {"stem.0.weight": sides[0]}
    for layer in range(1, layout.depth + 1):
        for group in range(SCALE - 1):
            kernels[f"blocks.{layer - 1}.1.groups.{group}.0.weight"] = sides[layer]
    return ElasticNet(
        genes,
        lambda choice: TDNN(choice, layout),
        kernels=kernels,
        indices=lambda choice: _indices(choice, layout),
    )


def _indices(choice: Choice, layout: Layout) -> Mapping[str, tuple[Index, ...]]:
    """Where channels of several origins lie side by side: the first of each origin."""
    width, pooled = choice.number("width0"), choice.number("pooled")
    depth = choice.number("depth")
    found: dict[str, tuple[Index, ...]] = {}
    for layer in range(1, depth + 1):
        hidden = choice.number(f"width{layer}")
        groups = _first_of_each(layout.width, SCALE, hidden // SCALE)
        block = f"blocks.{layer - 1}"
        found[f"{block}.0.0.weight"] = (groups, width, 1)
        for name in ("weight", "bias", "running_mean", "running_var"):
            found[f"{block}.0.2.{name}"] = (groups,)
        found[f"{block}.2.0.weight"] = (width, groups, 1)
    blocks = _first_of_each(layout.width * layout.depth, layout.depth, width)[: depth * width]
    found["mix.weight"] = (pooled, blocks, 1)
    statistics = _first_of_each(2 * layout.pooled, 2, pooled)
    for name in ("weight", "bias", "running_mean", "running_var"):
        found[f"head.0.{name}"] = (statistics,)
    found["head.1.weight"] = (layout.embedding, statistics)
    return found


def _first_of_each(channels: int, groups: int, kept: int) -> Tensor:
    """Indices of the first `kept` channels of each of several equal groups."""
    return torch.arange(channels, device="cpu").view(groups, -1)[:, :kept].flatten()
