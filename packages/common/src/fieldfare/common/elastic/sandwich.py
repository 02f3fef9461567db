# SPDX-License-Identifier: Apache-2.0
"""All sizes trained at once, from the first step to the last: the sandwich rule.

Yu and Huang 2019, *Universally Slimmable Networks* (arXiv 1903.05134), sections 3.2 and 3.3: every
step trains the largest network on the task, and the smallest and a few drawn ones on the largest
one's answers of the same step. Under progressive shrinking (`shrink`) small networks come last, at
a fraction of the learning rate; where steps are few they stay behind (`docs/elastic.md`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .shrink import soft_cross_entropy


@dataclass
class SandwichLoss:
    """(network, batch) -> sum of the losses of several networks; for `training.fit`.

    The network is an `elastic.shrink.Elastic`. Draws come from torch's generator.

    Attributes:
        task: (output, batch) -> scalar; of the largest network.
        inputs: batch -> what the network is called with.
        draws: networks a step, the largest and the smallest among them; at least 2.
        agree: (output, largest network's output) -> scalar; of all others.

    Raises:
        ValueError: fewer than two draws.
    """

    task: Callable[[Any, Any], Tensor]
    inputs: Callable[[Any], Any] = lambda batch: batch[0]
    draws: int = 4
    agree: Callable[[Any, Any], Tensor] = soft_cross_entropy

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise ValueError(
                f"draws {self.draws}: must be at least 2, the largest and the smallest"
            )

    def __call__(self, network: Any, batch: Any) -> Tensor:
        """The networks' losses, summed, not averaged."""
        given, space = self.inputs(batch), network.choices()
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        network.set(space.largest())
        taught = network(given)
        losses = [self.task(taught, batch)]
        others = [space.smallest(), *(space.sample(rng) for _ in range(self.draws - 2))]
        for choice in others:
            network.set(choice)
            losses.append(self.agree(network(given), taught.detach()))
        return torch.stack(losses).sum()


@dataclass
class SandwichTask:
    """The same where every network is trained on the task itself; for `training.fit`.

    For tasks without labels, whose loss says what is best without another network's answers.

    Attributes:
        loss: (network, batch) -> scalar; of the network as it is set.
        draws: networks a step, the largest and the smallest among them; at least 2.

    Raises:
        ValueError: fewer than two draws.
    """

    loss: Callable[[Any, Any], Tensor]
    draws: int = 4

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise ValueError(
                f"draws {self.draws}: must be at least 2, the largest and the smallest"
            )

    def __call__(self, network: Any, batch: Any) -> Tensor:
        """The networks' losses, summed, not averaged."""
        space = network.choices()
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        drawn = (space.sample(rng) for _ in range(self.draws - 2))
        losses = []
        for choice in (space.largest(), space.smallest(), *drawn):
            network.set(choice)
            losses.append(self.loss(network, batch))
        return torch.stack(losses).sum()
