# SPDX-License-Identifier: Apache-2.0
"""A network of normal and reduction cells, in one, two or three dimensions.

Zoph et al. 2018 (arXiv 1707.07012), figure 2 and section 3: normal cells keep the size, reduction
cells halve it and double the channels; inside a reduction cell only what comes from other cells is
taken with stride 2; paths are dropped more often the deeper they lie and the longer it trains.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks import ScheduledDropPath
from ..blocks.drop_path import keep_probability
from ..blocks.nd import convolution, normalisation
from .cells import INPUTS

OPERATIONS = ("skip", "avg3", "max3", "sep3", "dil3", "sep5")
"""Identity; pooling; separable convolutions: `sep` twice in a row, `dil` of dilation 2."""

Term = tuple[int, str]
Genes = tuple[tuple[Term, Term], ...]
"""Of each node what it takes and how, by names of operations."""


@dataclass(frozen=True)
class CellPlan:
    """All that a network of cells is made of; fit for a card.

    Attributes:
        normal, reduction: the cells.
        width: channels of a node of the first cells.
        repeats: normal cells between two reductions, before the first and behind the last.
        reductions: how often the size is halved.
        keep: probability with which a path of the last cell is kept at the end of training.
        steps: of the schedule to that.

    Raises:
        ValueError: an operation that is none, a node that takes what is not there, no repeats.
    """

    normal: Genes
    reduction: Genes
    width: int = 16
    repeats: int = 1
    reductions: int = 1
    keep: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        for name in ("normal", "reduction"):  # a card's are lists
            cell = tuple(tuple((int(s), str(op)) for s, op in node) for node in getattr(self, name))
            object.__setattr__(self, name, cell)
            for number, node in enumerate(cell):
                for source, operation in node:
                    if operation not in OPERATIONS:
                        raise ValueError(f"operation {operation!r}: choose {', '.join(OPERATIONS)}")
                    if not 0 <= source < INPUTS + number:
                        raise ValueError(f"{name} cell: node {number} cannot take state {source}")
        if not self.normal or self.repeats < 1 or (self.reductions and not self.reduction):
            raise ValueError("cells need nodes, and a network at least one normal cell")

    def to_dict(self) -> dict[str, Any]:
        """For a card; `CellPlan(**values)` reads it."""
        return asdict(self)


def plan_of(values: Mapping[str, Any] | CellPlan) -> CellPlan:
    """A plan from what a card holds."""
    return values if isinstance(values, CellPlan) else CellPlan(**values)


class Projection(nn.Sequential):
    """ReLU, 1x1 convolution, norm; (B, C, *size) -> (B, C', *ceil(size / stride))."""

    def __init__(self, ndim: int, channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__(
            nn.ReLU(),
            convolution(ndim, channels, out_channels, 1, stride, bias=False),
            normalisation(norm, ndim, out_channels),
        )


def operation(kind: str, ndim: int, channels: int, stride: int, norm: str) -> nn.Module:
    """One of `OPERATIONS`; (B, C, *size) -> (B, C, *ceil(size / stride))."""
    if kind == "skip":
        return nn.Identity() if stride == 1 else Projection(ndim, channels, channels, stride, norm)
    if kind in ("avg3", "max3"):
        return Pool(kind[:3], stride)
    side, dilation = int(kind[3:]), 2 if kind.startswith("dil") else 1
    layers = _separated(ndim, channels, side, stride, dilation, norm)
    if dilation == 1:
        layers += _separated(ndim, channels, side, 1, 1, norm)
    return nn.Sequential(*layers)


def _separated(
    ndim: int, channels: int, side: int, stride: int, dilation: int, norm: str
) -> list[nn.Module]:
    padding = dilation * (side // 2)
    return [
        nn.ReLU(),
        convolution(
            ndim, channels, channels, side, stride, padding, dilation, groups=channels, bias=False
        ),
        convolution(ndim, channels, channels, 1, bias=False),
        normalisation(norm, ndim, channels),
    ]


class Pool(nn.Module):
    """Mean (without what lies outside) or maximum of three along each axis."""

    def __init__(self, kind: str, stride: int) -> None:
        super().__init__()
        self.kind, self.stride = kind, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, C, *ceil(size / stride))."""
        ndim = x.ndim - 2
        if self.kind == "max":
            pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[ndim - 1]
            return pool(x, 3, self.stride, 1)
        mean: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[ndim - 1]
        border = (1, 1) * ndim  # of itself torch pools no volume with a side under 3
        inside = mean(F.pad(torch.ones_like(x[:1, :1]), border), 3, self.stride)
        found: Tensor = mean(F.pad(x, border), 3, self.stride) / inside
        return found


class Cell(nn.Module):
    """Nodes that are sums of two; those that none takes are concatenated.

    Args:
        before: channels of the output of the cell before the last one, and of the last one.
        width: channels of a node.
        halved: the last cell reduced, so the one before it is twice as large.
        keep: see `CellPlan`, of this cell.

    Attributes:
        channels: of what it gives.
    """

    def __init__(
        self,
        ndim: int,
        before: tuple[int, int],
        width: int,
        genes: Genes,
        *,
        reduction: bool,
        halved: bool,
        norm: str,
        keep: float,
        steps: int,
    ) -> None:
        super().__init__()
        self.older = Projection(ndim, before[0], width, 2 if halved else 1, norm)
        self.newer = Projection(ndim, before[1], width, 1, norm)
        self.sources = [source for node in genes for source, _ in node]
        self.operations = nn.ModuleList()
        for node in genes:
            for source, kind in node:
                stride = 2 if reduction and source < INPUTS else 1
                one = operation(kind, ndim, width, stride, norm)
                if keep < 1 and not isinstance(one, nn.Identity):
                    one = nn.Sequential(one, ScheduledDropPath(keep, steps))
                self.operations.append(one)
        states = range(INPUTS, INPUTS + len(genes))
        self.loose = [state for state in states if state not in self.sources]
        self.channels = width * len(self.loose)

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        """(B, C, *size) of the two cells before -> (B, channels, *size or half of it)."""
        states = [self.older(older), self.newer(newer)]
        for number in range(0, len(self.sources), 2):
            one, two = (
                self.operations[place](states[self.sources[place]])
                for place in (number, number + 1)
            )
            states.append(one + two)
        return torch.cat([states[place] for place in self.loose], dim=1)


class CellNetwork(nn.Module):
    """(B, C, *size) -> (B, channels, *smaller), each side at least 1.

    Args:
        ndim: 1, 2 or 3.
        in_channels: C.
        plan: the cells and how many.
        norm: of `blocks.nd.NORMS`, without an activation of its own.

    Attributes:
        channels: of what it gives.
    """

    def __init__(self, ndim: int, in_channels: int, plan: CellPlan, norm: str = "batch") -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(ndim, in_channels, plan.width, 3, padding=1, bias=False),
            normalisation(norm, ndim, plan.width),
        )
        kinds = ([False] * plan.repeats + [True]) * plan.reductions + [False] * plan.repeats
        before, width, halved = (plan.width, plan.width), plan.width, False
        self.cells = nn.ModuleList()
        for number, reduction in enumerate(kinds, start=1):
            width *= 1 + reduction
            cell = Cell(
                ndim,
                before,
                width,
                plan.reduction if reduction else plan.normal,
                reduction=reduction,
                halved=halved,
                norm=norm,
                keep=keep_probability(plan.keep, depth=number / len(kinds)),
                steps=plan.steps,
            )
            self.cells.append(cell)
            before, halved = (before[1], cell.channels), reduction
        self.channels = before[1]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, channels, *ceil(size / 2**reductions))."""
        older = newer = self.stem(x)
        for cell in self.cells:
            older, newer = newer, cell(older, newer)
        found: Tensor = newer
        return found
