# SPDX-License-Identifier: Apache-2.0
"""One fixed network that all sizes of a step learn from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Teacher:
    """Asks a network about a batch once, however many sizes learn from its answer.

    Args:
        network: in evaluation mode from now on, and without gradients.
        ask: (network, batch) -> what it says.
    """

    def __init__(self, network: nn.Module, ask: Callable[[nn.Module, Any], Any]) -> None:
        self._network, self._ask = network.eval().requires_grad_(False), ask
        self._seen: Any = None
        self._said: Any = None

    def __call__(self, batch: Any) -> Any:
        """What it says of a batch; the last batch, and no equal one, is known again."""
        if batch is not self._seen:
            with torch.no_grad():
                self._said = self._ask(self._network, batch)
            self._seen = batch
        return self._said
