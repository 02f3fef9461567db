# SPDX-License-Identifier: Apache-2.0
"""What training draws: flows as inputs, as they are, changed, disguised and cut short."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fieldfare.common.experts.events import truncate
from fieldfare.common.training import Draw

from ..capture import FlowBatch
from ..data.evasion import Evasion, evade
from ..data.flow_rows import first_packets_only, packet_number, take
from ..data.masking import mask
from ..data.spool import PIECE, RowSpool
from ..data.variations import Chances, vary
from ..networks.architectures import Architecture

Teacher = Callable[[FlowBatch], np.ndarray]
"""Flows -> probabilities (N, C) of the classes to train on."""

SHOWN_EVERY = 4
"""Batches of which one shows what is optional. Ports are easy to learn and need few."""

EARLY = 8
"""A flow cut short keeps 1 to so many of its packets."""


class Drawn(NamedTuple):
    """A batch of B flows.

    Attributes:
        inputs: what the network reads.
        taught: (B, C), what the teacher says of them, if there is one.
        cut: the same flows cut short, where they were asked for.
    """

    inputs: Any
    taught: Tensor | None
    cut: Any


class Draws(Dataset[tuple[int, int, int]]):
    """Which flow, a number for all else that is random about it, and the number of the draw."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: Draw) -> tuple[int, int, int]:
        return draw.index, int(draw.rng().integers(2**62)), draw.seed[1]


class Variants:
    """Flows as inputs, as they are and changed, with and without what is optional.

    Only numbers of flows are drawn beforehand: each batch is read when its turn comes.

    Args:
        folder: of temporary files.
    """

    def __init__(
        self,
        kind: Architecture,
        config: Any,
        flows: FlowBatch,
        hidden: Collection[str],
        optional: Collection[str],
        folder: Path,
        variations: int = 0,
        seed: int = 0,
        teacher: Teacher | None = None,
    ) -> None:
        self.kind, self.config, self.flows = kind, config, flows
        self.fields = [{*hidden, *optional}, set(hidden)] if optional else [set(hidden)]
        self.chances: list[Chances | None] = [None]
        self.taught: list[np.ndarray] = []
        for number in range(1, variations + 1):
            drawn = Chances.draw(len(flows), np.random.default_rng((seed, number)))
            spool = RowSpool(folder)
            spool.append(drawn._asdict())
            self.chances.append(Chances(**spool.finish()))
        for number in range(variations + 1):
            if teacher is None:
                break
            spool = RowSpool(folder)
            for first in range(0, len(flows), PIECE):
                rows = np.arange(first, min(first + PIECE, len(flows)))
                spool.append({"taught": teacher(self._changed(rows, number)).astype(np.float32)})
            self.taught.append(spool.finish()["taught"])

    def _changed(self, rows: np.ndarray, number: int) -> FlowBatch:
        """Some flows, as one of the copies has them."""
        flows, chances = take(self.flows, rows), self.chances[number]
        return flows if chances is None else vary(flows, chances.of(rows))

    def batch(
        self,
        rows: np.ndarray,
        rng: np.random.Generator,
        disguise: Callable[[Callable[[Evasion | None], Any]], Evasion] | None = None,
        *,
        cut: bool = False,
    ) -> Drawn:
        """Some flows, in one of the variants.

        Args:
            disguise: from how flows are read once they are disguised to how they shall be.
            cut: also give them cut short, see `cut_short`.
        """
        # One variant for a whole batch.
        shown = rng.integers(SHOWN_EVERY) == 0
        copy = int(rng.integers(len(self.chances))) if len(self.chances) > 1 else 0
        taught = torch.from_numpy(self.taught[copy][rows]) if self.taught else None
        changed, hidden = self._changed(rows, copy), self.fields[-1 if shown else 0]

        def read(how: Evasion | None, whole: FlowBatch = changed) -> Any:
            seen = mask(whole if how is None else evade(whole, how), hidden)
            return self.kind.read(seen, self.config).batch(np.arange(len(rows)))

        how = None if disguise is None else disguise(read)
        return Drawn(read(how), taught, read(how, cut_short(changed, rng)) if cut else None)


def cut_short(flows: FlowBatch, rng: np.random.Generator) -> FlowBatch:
    """Each flow's first packets alone, 1 to `EARLY` of them or all, as many as is drawn.

    The first packet with payload stays: before it nobody can tell a class.
    """
    packets, number = flows.first_packets, packet_number(flows)
    count = np.bincount(packets.flow, minlength=len(flows))
    there = torch.from_numpy(np.arange(EARLY) < count[:, None])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    kept = truncate(there, generator).sum(dim=1).numpy()
    first = np.full(len(flows), len(number) + 1)
    speaking = packets.payload_length > 0
    np.minimum.at(first, packets.flow[speaking], number[speaking] + 1)
    first[first > len(number)] = 1
    return first_packets_only(flows, np.maximum(kept, first))
