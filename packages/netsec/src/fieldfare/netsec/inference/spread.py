# SPDX-License-Identifier: Apache-2.0
"""How far the experts of a network disagree on a flow, each asked by itself (THOR)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fieldfare.common.experts.stochastic import members, routers, spread


def experts_to_ask(network: nn.Module) -> int:
    """Experts that each of its layers can be forced to; 0 of a network without stochastic ones."""
    return min((router.count for router in routers(network)), default=0)


def spread_of(
    network: nn.Module, answer: Callable[[], np.ndarray], count: int, temperature: float = 1.0
) -> np.ndarray:
    """(N,) float64, nats: `stochastic.spread` of what the experts answer; one pass an expert.

    Args:
        answer: a pass of the network, to logits (N, C).
        count: of experts.
        temperature: that logits are divided by.

    Raises:
        ValueError: it has not so many experts to ask.
    """

    def logits() -> Tensor:
        return torch.from_numpy(answer()).double()

    with torch.inference_mode():
        found: np.ndarray = spread(members(network, logits, count) / temperature).numpy()
    return found
