# SPDX-License-Identifier: Apache-2.0
"""Stitching: networks of several sizes joined by linear layers into many of sizes between.

Pan et al. 2023, *Stitchable Neural Networks* (arXiv 2302.06586): run the first blocks of a small
network, project its tokens to the width of the next larger one, go on in that one. Blocks near one
another in depth share a projection; it starts as the least-squares map between their features.
Three DeiTs give 71 networks, three Swins 41.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..elastic.genes import Space, Value


@dataclass(frozen=True)
class Stitch:
    """Run `last` of the front network, then the projection, then go on with `first` of the next.

    Attributes:
        front: index of the front network; the next one is front + 1.
        stage: in which both blocks lie; 0 where networks have no stages.
        last, first: blocks of that stage.
        layer: index of the projection within that pair of networks and that stage.
    """

    front: int
    stage: int
    last: int
    first: int
    layer: int


def pairs(
    depths: tuple[int, int], window: int = 2, stride: int = 1, *, back: bool = True
) -> list[tuple[int, int, int]]:
    """(last block of the front, first block of the next, projection), in the order of projections.

    Networks of equal depth: all pairs within a window that slides over the depth (cut off at its
    end); a pair belongs to the first window that holds it, and a window that holds no new pair has
    no projection. Of different depth: block i of the deeper one belongs to block
    floor(i * front / deeper) of the front, and pairs go forward only.

    Args:
        depths: of the front network and of the next, which is at least as deep.
        back: also pairs that repeat blocks or go back in depth, where the depths are equal.

    Raises:
        ValueError: the next network is not as deep.
    """
    front, end = depths
    if end < front:
        raise ValueError(f"the next network has {end} blocks, fewer than the front's {front}")
    if front != end:
        matched = [(index * front // end, index) for index in range(end)]
        forward = [(last, first) for last, first in matched if last < first]
        lasts = sorted({last for last, _ in forward})
        return [(last, first, lasts.index(last)) for last, first in forward]
    found: dict[tuple[int, int], int] = {}
    layer = 0
    for start in range(0, front, stride):
        blocks = range(start, min(start + window, front))
        for last in blocks:
            for first in blocks:
                if back or last < first:
                    found.setdefault((last, first), layer)
        layer = max(found.values(), default=-1) + 1
    return [(last, first, layer) for (last, first), layer in found.items()]


def stitches(depths: Sequence[Sequence[int]], window: int = 2, stride: int = 1) -> list[Stitch]:
    """All stitches between neighbours in size.

    Args:
        depths: of each network, smallest first, the blocks of each stage. Where there are several
            stages, the last has no stitches, and none goes back, as in the published Swins.

    Raises:
        ValueError: fewer than two networks, or different numbers of stages.
    """
    if len(depths) < 2:
        raise ValueError("at least two networks are needed")
    if len({len(own) for own in depths}) > 1:
        raise ValueError("all networks need the same number of stages")
    found, back = [], len(depths[0]) == 1
    for front, (small, large) in enumerate(pairwise(depths)):
        for stage in range(max(1, len(small) - 1)):
            own = small[stage], large[stage]
            for last, first, layer in pairs(own, window, stride, back=back):
                found.append(Stitch(front, stage, last, first, layer))
    return found


class StitchedNet(nn.Module):
    """Several networks of one kind and all stitches between them; after construction the largest.

    Gene `network`: the anchors by themselves first, then the stitches, in the order of `stitches`.

    Args:
        anchors: modules that are `anchors.Anchor`, smallest first; the width of their features may
            differ, their number and places may not.
        widths: of each anchor's features, by stage where there are several.
        stitched: finish of a stitched network by anchor, where it is another than the anchor's.
    """

    def __init__(
        self,
        anchors: Sequence[nn.Module],
        widths: Sequence[int | Sequence[int]],
        *,
        window: int = 2,
        stride: int = 1,
        stitched: Callable[[int, Tensor], Any] | None = None,
    ) -> None:
        super().__init__()
        if len(widths) != len(anchors):
            raise ValueError(f"{len(anchors)} anchors need as many widths, got {len(widths)}")
        self.anchors = nn.ModuleList(anchors)
        depths = [self._anchor(index).stages for index in range(len(anchors))]
        self.stitches = stitches(depths, window, stride)
        each = [(w,) * len(depths[0]) if isinstance(w, int) else tuple(w) for w in widths]
        self.projections = nn.ModuleList(nn.ModuleList() for _ in anchors[1:])
        self._layers: dict[tuple[int, int, int], int] = {}  # front, stage, layer -> place
        for stitch in self.stitches:
            key = stitch.front, stitch.stage, stitch.layer
            if key not in self._layers:
                layers: Any = self.projections[stitch.front]
                self._layers[key] = len(layers)
                small, large = each[stitch.front], each[stitch.front + 1]
                layers.append(nn.Linear(small[stitch.stage], large[stitch.stage]))
        self._stitched = stitched
        total = len(anchors) + len(self.stitches)
        self.space = Space({"network": tuple(range(total))})
        self.network = len(anchors) - 1

    def _anchor(self, index: int) -> Any:
        return self.anchors[index]

    def choices(self) -> Space:
        """One gene; its order is that of `describe`, not of size."""
        return self.space

    def set(self, choice: Mapping[str, Value]) -> None:
        """Run as this network from now on.

        Raises:
            ValueError: no such network.
        """
        self.network = self.space.canonical(choice).number("network")

    def describe(self, network: int) -> str:
        """In words, for tables."""
        if network < len(self.anchors):
            return f"network {network}"
        stitch = self.stitches[network - len(self.anchors)]
        last, first = self._blocks(stitch)
        front, end = stitch.front, stitch.front + 1
        return f"network {front} to block {last}, network {end} from block {first}"

    def join(self, network: int) -> tuple[int, int, nn.Linear]:
        """Of a stitch: the front's last block, the next one's first, the layer between them.

        Blocks are counted over all stages.

        Raises:
            ValueError: no stitch, but a network by itself.
        """
        if network < len(self.anchors):
            raise ValueError(f"network {network} is no stitch, but one of those that were given")
        stitch = self.stitches[network - len(self.anchors)]
        return *self._blocks(stitch), self._projection(stitch)

    def forward(self, x: Tensor) -> Any:
        """What the chosen network gives."""
        if self.network < len(self.anchors):
            anchor = self._anchor(self.network)
            return anchor.finish(_run(anchor.blocks, anchor.embed(x)))
        stitch = self.stitches[self.network - len(self.anchors)]
        front, end = self._anchor(stitch.front), self._anchor(stitch.front + 1)
        last, first = self._blocks(stitch)
        features = _run(front.blocks[: last + 1], front.embed(x)).movedim(front.axis, -1)
        features = self._projection(stitch)(features).movedim(-1, end.axis)
        features = _run(end.blocks[first:], features)
        if self._stitched is not None:
            return self._stitched(stitch.front + 1, features)
        return end.finish(features)

    def _blocks(self, stitch: Stitch) -> tuple[int, int]:
        """The last block of the front and the first of the next, counted over all stages."""
        front, end = self._anchor(stitch.front), self._anchor(stitch.front + 1)
        before = sum(front.stages[: stitch.stage]), sum(end.stages[: stitch.stage])
        return before[0] + stitch.last, before[1] + stitch.first

    def _projection(self, stitch: Stitch) -> nn.Linear:
        layers: Any = self.projections[stitch.front]
        found: nn.Linear = layers[self._layers[stitch.front, stitch.stage, stitch.layer]]
        return found

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start every projection as the least-squares map between the features it joins.

        Args:
            x: one batch of inputs; about 100 samples are enough. More places than the front's
                width are needed.
        """
        mode = self.training
        self.eval()  # dropped paths would be fitted otherwise
        features = [_features(self._anchor(index), x) for index in range(len(self.anchors))]
        self.train(mode)
        fits: dict[nn.Linear, list[tuple[Tensor, Tensor]]] = {}
        for stitch in self.stitches:
            last, first = self._blocks(stitch)
            given = features[stitch.front][last + 1]
            wanted = features[stitch.front + 1][first]
            fits.setdefault(self._projection(stitch), []).append(least_squares(given, wanted))
        for layer, found in fits.items():
            layer.weight.copy_(torch.stack([weight for weight, _ in found]).mean(dim=0))
            layer.bias.copy_(torch.stack([bias for _, bias in found]).mean(dim=0))


def least_squares(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The linear layer that maps features best: (..., F) to (..., E) -> weight (E, F), bias (E,).

    Computed in float64.
    """
    rows = given.flatten(0, -2).double()
    rows = torch.cat((rows, rows.new_ones(len(rows), 1)), dim=1)
    found = torch.linalg.lstsq(rows, wanted.flatten(0, -2).double(), driver="gelsd").solution
    return found[:-1].T.to(given.dtype), found[-1].to(given.dtype)


def _features(anchor: Any, x: Tensor) -> list[Tensor]:
    """Before the first block, and behind each; channels last."""
    features = anchor.embed(x)
    found = [features.movedim(anchor.axis, -1)]
    for block in anchor.blocks:
        features = block(features)
        found.append(features.movedim(anchor.axis, -1))
    return found


def _run(blocks: Sequence[nn.Module], features: Tensor) -> Tensor:
    for block in blocks:
        features = block(features)
    return features
