# SPDX-License-Identifier: Apache-2.0
"""Latency slimming: from a network of choices, take away what costs most time for its worth.

Li et al. 2022, *EfficientFormer: Vision Transformers at MobileNet Speed* (arXiv 2206.01191): each
slot of a network mixes its candidate blocks with learnt weights; afterwards, one action after
another (a slot's next cheaper candidate), the one that loses least worth for each millisecond saved
is taken, until the whole fits. The published networks' search code is not published. `budget.table`
tells the milliseconds of candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MixedBlock(nn.Module):
    """A slot: its candidates' outputs, mixed by Gumbel softmax while training.

    Attributes:
        alpha: (K,), learnt; in evaluation the largest one's candidate runs alone.

    Args:
        candidates: the most costly first; of equal output shape, `nn.Identity()` for nothing.
        temperature: of the mixture; lower is nearer to one candidate.
    """

    def __init__(self, candidates: Sequence[nn.Module], temperature: float = 1.0) -> None:
        super().__init__()
        if len(candidates) < 2:
            raise ValueError("a slot needs at least two candidates")
        self.candidates = nn.ModuleList(candidates)
        self.alpha = nn.Parameter(torch.zeros(len(candidates)))
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """What the candidates give."""
        if not self.training:
            found: Tensor = self.candidates[int(self.alpha.argmax())](x)
            return found
        weights = F.gumbel_softmax(self.alpha, tau=self.temperature)
        outputs = torch.stack([candidate(x) for candidate in self.candidates])
        mixed: Tensor = torch.tensordot(weights, outputs, dims=1)
        return mixed

    @torch.no_grad()
    def worths(self) -> list[float]:
        """Of each candidate, its weight relative to the last one's, which is 1."""
        found: list[float] = (self.alpha - self.alpha[-1]).exp().tolist()
        return found


@dataclass(frozen=True)
class Slot:
    """A place in a network and what may stand there, the most costly first.

    Attributes:
        milliseconds: of each candidate, strictly falling.
        worths: of each candidate; the network's worth is their sum.
    """

    milliseconds: tuple[float, ...]
    worths: tuple[float, ...]

    def __post_init__(self) -> None:
        times = self.milliseconds
        if not times or len(times) != len(self.worths):
            raise ValueError(f"{len(times)} times and {len(self.worths)} worths of one slot")
        if any(later >= earlier for earlier, later in pairwise(times)):
            raise ValueError(f"milliseconds {times}: must fall from candidate to candidate")


@dataclass(frozen=True)
class Step:
    """Slot `slot` went to candidate `candidate`; `milliseconds` is all the network's, after it."""

    slot: int
    candidate: int
    milliseconds: float


def slim_to(slots: Sequence[Slot], budget: float) -> list[Step]:
    """The steps from the most costly network down to one that fits, in order.

    Args:
        budget: milliseconds.

    Returns:
        Empty where it fits as it is. Ties go to the earlier slot.

    Raises:
        ValueError: the cheapest network takes longer; the message says how long.
    """
    least = sum(slot.milliseconds[-1] for slot in slots)
    if least > budget:
        raise ValueError(f"{budget:g} ms: the smallest network takes {least:g} ms")
    own = [0] * len(slots)
    steps: list[Step] = []

    def total() -> float:
        return sum(slot.milliseconds[k] for slot, k in zip(slots, own, strict=True))

    while total() > budget:
        open_slots = [i for i, slot in enumerate(slots) if own[i] + 1 < len(slot.worths)]
        best = min(open_slots, key=lambda i: _loss_per_millisecond(slots[i], own[i]))
        own[best] += 1
        steps.append(Step(best, own[best], total()))
    return steps


def _loss_per_millisecond(slot: Slot, candidate: int) -> float:
    lost = slot.worths[candidate] - slot.worths[candidate + 1]
    return lost / (slot.milliseconds[candidate] - slot.milliseconds[candidate + 1])


def chosen(slots: Sequence[Slot], steps: Sequence[Step]) -> list[int]:
    """Candidate of each slot after the steps."""
    found = [0] * len(slots)
    for step in steps:
        found[step.slot] = step.candidate
    return found
