# SPDX-License-Identifier: Apache-2.0
"""Progressive shrinking: the largest network is trained first, then smaller and smaller ones too.

Cai et al. 2020, *Once-for-All* (arXiv 1908.09791): kernels become elastic first, then depth, then
the hidden width, whose channels are sorted before; every step draws a few networks and adds up
their gradients, each with the task's loss and, beside it, the largest trained network's answers.

`training.fit` runs a stage with a `ShrinkingLoss`, which draws from torch's generator; `fit` seeds
that by the step, so a resumed run draws the same networks.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .genes import Space, Value

_EPOCHS = (180, 120, 25, 120, 25, 120)
_RATES = (1.0, 3e-2 / 2.6, 2.5e-3 / 2.6, 7.5e-3 / 2.6, 2.5e-3 / 2.6, 7.5e-3 / 2.6)


class Elastic(Protocol):
    """What can be set to a choice: elastic, stitched and exiting networks."""

    def choices(self) -> Space:
        """What can be set."""

    def set(self, choice: Mapping[str, Value]) -> None:
        """Run as this network from now on."""


@dataclass(frozen=True)
class Stage:
    """A part of the schedule.

    Attributes:
        name: for logs and folders.
        space: of the networks drawn.
        draws: networks a step; their gradients are summed.
        share: of the steps of the whole schedule, 0 to 1.
        rate: learning rate as a share of the first stage's.
        sort: widths that were drawn before, besides the largest, for `mobilenet.sort_channels`,
            which is to be called before this stage; None where nothing is to be sorted.
    """

    name: str
    space: Space
    draws: int
    share: float
    rate: float
    sort: tuple[Any, ...] | None = None


def published_stages(space: Space) -> list[Stage]:
    """The largest network; then kernels; depths in two steps; all else (widths) in two steps.

    Shares are the published epochs (180, 120, 25, 120, 25, 120), draws the published 1, 1, 2, 2, 4,
    4, rates the published ones for 32 processes with 64 images each.

    Args:
        space: with genes whose names begin with `kernel` and `depth`.
    """
    allowed = {gene: values[-1:] for gene, values in space.genes.items()}
    plan = (
        ("largest", "$", 1, 1),
        ("kernel", "kernel", 0, 1),
        ("depth 1", "depth", 2, 2),
        ("depth 2", "depth", 0, 2),
        ("width 1", "(?!kernel|depth)", 2, 4),
        ("width 2", "(?!kernel|depth)", 0, 4),
    )
    stages = []
    for (name, pattern, most, draws), epochs, rate in zip(plan, _EPOCHS, _RATES, strict=True):
        opened = {g: v[-most:] for g, v in space.genes.items() if re.match(pattern, g)}
        before = {value for gene in opened for value in allowed[gene][:-1]}
        allowed |= opened
        sort = tuple(sorted(before)) if name.startswith("width") else None
        share = epochs / sum(_EPOCHS)
        stages.append(Stage(name, space.restricted(allowed), draws, share, rate, sort))
    return stages


def soft_cross_entropy(logits: Tensor, taught: Tensor) -> Tensor:
    """Cross entropy against another network's probabilities; logits (B, C, ...) both, the mean."""
    return -(taught.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


@dataclass
class ShrinkingLoss:
    """(network, batch) -> sum over a few drawn networks of their losses; for `training.fit`.

    Attributes:
        stage: what is drawn.
        task: (output, batch) -> scalar.
        inputs: batch -> what the network is called with.
        teacher: the largest network after its own training, in the mode it is in (the published one
            normalises by the batch, in training mode); None for no distillation.
        agree: (output, teacher's output) -> scalar, with weight 1 beside the task's.
        smallest: where a step draws several networks, the first is the smallest of the stage, which
            random draws hardly ever are (Yu and Huang 2019, arXiv 1903.05134); not in the published
            schedule.
    """

    stage: Stage
    task: Callable[[Any, Any], Tensor]
    inputs: Callable[[Any], Any] = lambda batch: batch[0]
    teacher: nn.Module | None = None
    agree: Callable[[Any, Any], Tensor] = soft_cross_entropy
    smallest: bool = False

    def __call__(self, network: Any, batch: Any) -> Tensor:
        """The networks' losses, summed, not averaged."""
        given = self.inputs(batch)
        taught = None
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(given)
        seed = int(torch.randint(2**62, ()))
        rng = np.random.default_rng(seed)
        losses = []
        for number in range(self.stage.draws):
            first = self.smallest and number == 0 < self.stage.draws - 1
            space = self.stage.space
            network.set(space.smallest() if first else space.sample(rng))
            output = network(given)
            loss = self.task(output, batch)
            if self.teacher is not None:
                loss = loss + self.agree(output, taught)
            losses.append(loss)
        return torch.stack(losses).sum()
