# SPDX-License-Identifier: Apache-2.0
"""What a layer chose over a calibration set: how often each expert, how alike they are wanted."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .choice import Choice
from .host import Chain


class Statistics:
    """Of one layer's choices over many passes, in memory of E x E.

    Args:
        count: E.
    """

    def __init__(self, count: int) -> None:
        self.tokens = 0
        self.chosen = torch.zeros(count, dtype=torch.float64)
        self._sum = torch.zeros(count, dtype=torch.float64)
        self._products = torch.zeros(count, count, dtype=torch.float64)

    def add(self, choice: Choice) -> None:
        """Count a pass; masked tokens are left out.

        Raises:
            ValueError: a logit is not finite, as of routers that look the expert up.
        """
        logits, chosen = choice.logits.detach(), choice.chosen
        keep = slice(None) if choice.mask is None else choice.mask.flatten()
        logits = logits.flatten(0, -2)[keep].double().cpu()
        if not bool(logits.isfinite().all()):
            raise ValueError("logits must be finite; this router gives certainties")
        self.tokens += len(logits)
        self.chosen += chosen.flatten(0, -2)[keep].sum(dim=0).cpu()
        self._sum += logits.sum(dim=0)
        self._products += logits.T @ logits

    @property
    def usage(self) -> Tensor:
        """(E,) share of all choices; sums to 1."""
        return self.chosen / self.chosen.sum().clamp_min(1)

    def similarity(self) -> Tensor:
        """(E, E), 0 to 1: (cosine of the experts' logits over the tokens + 1) / 2."""
        size = self._products.diagonal().sqrt().clamp_min(1e-30)
        return (self._products / size / size[:, None] + 1) / 2

    def correlation(self) -> Tensor:
        """(E, E), -1 to 1, of the experts' logits over the tokens."""
        mean = self._sum / max(1, self.tokens)
        covariance = self._products / max(1, self.tokens) - mean * mean[:, None]
        size = covariance.diagonal().clamp_min(0).sqrt().clamp_min(1e-30)
        return covariance / size / size[:, None]


def observe(chain: Chain, passes: Iterable[object]) -> dict[str, Statistics]:
    """Statistics of all layers of a chain, by name.

    Args:
        chain: of the network.
        passes: runs one pass each time it is advanced, as `(network(x) for x in batches)`.
    """
    found: dict[str, Statistics] = {}
    with torch.no_grad():
        for _ in passes:
            for name, choice in chain.choices.items():
                found.setdefault(name, Statistics(choice.logits.shape[-1])).add(choice)
    return found
