# SPDX-License-Identifier: Apache-2.0
"""A frozen network with heads in the middle, and gates that decide where each sample leaves.

Regol et al. 2024, JEI-DNN (arXiv 2310.09163); see `exits`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..efficiency.cost import cost
from ..elastic.genes import Space, Value
from .exits import exit_of, exit_probabilities, gate_inputs

GATED = "gated"
"""The choice in which every sample leaves where the gates let it."""


@dataclass(frozen=True)
class Answers:
    """What a network with exits says.

    Attributes:
        logits: (N, C).
        exits: (N,) int64, where each sample left; the last number is the final head.
    """

    logits: Tensor
    exits: Tensor

    def cost(self, costs: Sequence[float]) -> float:
        """Mean cost of a sample, by what every exit costs (the final head last)."""
        table = torch.tensor(costs, dtype=torch.float64)
        return float(table[self.exits.cpu()].mean())


class ExitNet(nn.Module):
    """Logits (N, C) from the final head, from one exit, or from where the gates let a sample out.

    The network itself stays as it is: without gradients, in evaluation mode. After construction all
    samples go to the final head.

    Args:
        anchor: see `anchors.Anchor`.
        at: blocks behind which there are exits, ascending, none behind the last block.
        width: of what `anchor.pool` gives.
        classes: C.

    Raises:
        ValueError: exits out of order or out of range.
    """

    def __init__(self, anchor: nn.Module, at: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        self.anchor = anchor.requires_grad_(False).eval()
        last = len(self._anchor.blocks) - 1
        if not at or sorted(set(at)) != list(at) or at[0] < 0 or at[-1] >= last:
            raise ValueError(f"exits {list(at)}: must ascend within 0 to {last - 1}")
        self.at = tuple(at)
        self.heads = nn.ModuleList(nn.Linear(width, classes) for _ in at)
        self.gates = nn.ModuleList(nn.Linear(4, 1) for _ in at)
        exits: tuple[Value, ...] = (*range(len(at)), GATED, len(at))
        self.space = Space({"exit": exits})
        self.exit: Value = len(at)

    @property
    def _anchor(self) -> Any:
        return self.anchor

    def train(self, mode: bool = True) -> "ExitNet":
        """Heads and gates; the network stays in evaluation mode."""
        super().train(mode)
        self.anchor.eval()
        return self

    def choices(self) -> Space:
        """Gene `exit`: one for all samples, `gated`, or the final head."""
        return self.space

    def set(self, choice: Mapping[str, Value]) -> None:
        """Answer from there from now on.

        Raises:
            ValueError: no such exit.
        """
        self.exit = self.space.canonical(choice)["exit"]

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, C)."""
        if self.exit == GATED:
            return self.answer(x).logits
        number = int(self.exit)
        features = self._anchor.embed(x)
        if number == len(self.at):
            found: Tensor = self._anchor.finish(_run(self._anchor.blocks, features))
            return found
        features = _run(self._anchor.blocks[: self.at[number] + 1], features)
        logits: Tensor = self.heads[number](self._anchor.pool(features))
        return logits

    @torch.no_grad()
    def answer(self, x: Tensor) -> Answers:
        """Let every sample out where its gates say; a block sees only those still inside.

        Args:
            x: (N, ...), N at least 1.
        """
        features = self._anchor.embed(x)
        inside = torch.arange(len(x), device=features.device)
        exits = torch.full_like(inside, len(self.at))
        gates = features.new_zeros(len(x), len(self.at))
        logits, start = None, 0
        for number, block in enumerate(self.at):
            features = _run(self._anchor.blocks[start : block + 1], features)
            own = self.heads[number](self._anchor.pool(features))
            if logits is None:
                logits = own.new_zeros(len(x), own.shape[1])
            gates[inside, number] = self._gate(number, own)
            leaving = exit_of(gates[inside, : number + 1]) == number
            logits[inside[leaving]] = own[leaving]
            exits[inside[leaving]] = number
            inside, features, start = inside[~leaving], features[~leaving], block + 1
            if not len(inside):
                break
        assert logits is not None
        if len(inside):
            features = _run(self._anchor.blocks[start:], features)
            logits[inside] = self._anchor.finish(features)
        return Answers(logits, exits)

    def _gate(self, number: int, logits: Tensor) -> Tensor:
        found: Tensor = self.gates[number](gate_inputs(logits))[:, 0].sigmoid()
        return found

    @torch.no_grad()
    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What training needs of the frozen network: inputs of the heads, and the final logits.

        Returns:
            (N, G, width) and (N, C).
        """
        features, found, start = self._anchor.embed(x), [], 0
        for block in self.at:
            features = _run(self._anchor.blocks[start : block + 1], features)
            found.append(self._anchor.pool(features))
            start = block + 1
        return torch.stack(found, dim=1), self._anchor.finish(
            _run(self._anchor.blocks[start:], features)
        )

    def head_logits(self, features: Tensor) -> Tensor:
        """(N, G, width) -> (N, G, C)."""
        each = [head(f) for head, f in zip(self.heads, features.unbind(1), strict=True)]
        return torch.stack(each, dim=1)

    def gate_logits(self, head_logits: Tensor) -> Tensor:
        """(N, G, C) -> (N, G); no gradient into the heads."""
        pairs = zip(self.gates, head_logits.unbind(1), strict=True)
        return torch.cat([gate(gate_inputs(logits)) for gate, logits in pairs], dim=1)

    def shares(self, head_logits: Tensor) -> Tensor:
        """Probability of leaving at each exit, the final head's last: (N, G, C) -> (N, G + 1)."""
        shares = exit_probabilities(self.gate_logits(head_logits).sigmoid())
        return torch.cat((shares, 1 - shares.sum(dim=1, keepdim=True)), dim=1)

    def costs(self, *shape: int) -> list[int]:
        """Multiply-accumulates of a sample that leaves at each exit, the final head last.

        Heads and gates on the way are counted.

        Args:
            shape: of one sample.
        """
        return [cost(_Path(self, number), (1, *shape)).macs for number in range(len(self.at) + 1)]


class _Path(nn.Module):
    """All that is run for a sample that leaves at one exit."""

    def __init__(self, net: ExitNet, number: int) -> None:
        super().__init__()
        self.net, self.number = net, number

    def forward(self, x: Tensor) -> Tensor:
        anchor, start = self.net._anchor, 0
        features, logits = anchor.embed(x), x
        for number, block in enumerate(self.net.at[: self.number + 1]):
            features = _run(anchor.blocks[start : block + 1], features)
            logits = self.net.heads[number](anchor.pool(features))
            self.net._gate(number, logits)
            start = block + 1
        if self.number < len(self.net.at):
            return logits
        found: Tensor = anchor.finish(_run(anchor.blocks[start:], features))
        return found


def _run(blocks: Sequence[nn.Module], features: Tensor) -> Tensor:
    for block in blocks:
        features = block(features)
    return features
