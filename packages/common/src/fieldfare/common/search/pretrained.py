# SPDX-License-Identifier: Apache-2.0
"""A predictor of quality that first learnt what can be counted for nothing.

FBNetV3 (Dai et al. 2021, arXiv 2006.02049): network and training recipe are genes of one choice; an
encoder of the genes is trained to predict statistics that need no training (operations, parameters,
cost of each stage), then a head on it is trained with the few choices whose quality was measured.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..elastic.genes import Choice, Space

WIDTH = 64


class PretrainedPredictor:
    """An encoder of genes with a head for statistics and one for quality.

    Args:
        statistics: choice -> numbers that are counted.
        samples: random choices that the encoder is trained with; 0 leaves it untrained.
    """

    def __init__(
        self,
        space: Space,
        statistics: Callable[[Choice], Sequence[float]],
        *,
        samples: int = 2000,
        seed: int = 0,
        steps: int = 400,
    ) -> None:
        self._space = space
        rng = np.random.default_rng(seed)
        outputs = len(statistics(space.smallest()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inputs = len(space.encode(space.smallest()))
            self._encoder = nn.Sequential(
                nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU()
            )
            self._counted, self._head = nn.Linear(WIDTH, outputs), nn.Linear(WIDTH, 1)
        self._middle, self._spread = 0.0, 1.0
        if samples:
            drawn = [space.sample(rng) for _ in range(samples)]
            told = torch.tensor([list(statistics(choice)) for choice in drawn]).float()
            told = (told - told.mean(0)) / told.std(0).clamp_min(1e-9)
            _train(
                nn.Sequential(self._encoder, self._counted), self._codes(drawn), told, steps, 3e-3
            )

    def _codes(self, choices: Sequence[Choice]) -> Tensor:
        return torch.from_numpy(np.stack([self._space.encode(choice) for choice in choices]))

    def fit(self, choices: Sequence[Choice], values: NDArray[np.float64], steps: int = 400) -> None:
        """Learn from measured values, (count,); encoder and head together."""
        self._middle, self._spread = float(values.mean()), float(values.std()) or 1.0
        scaled = torch.from_numpy((values - self._middle) / self._spread).float()[:, None]
        _train(nn.Sequential(self._encoder, self._head), self._codes(choices), scaled, steps, 1e-3)

    @torch.no_grad()
    def __call__(self, choices: Sequence[Choice]) -> NDArray[np.float64]:
        """Expected values, (count,)."""
        found = self._head(self._encoder(self._codes(choices)))[:, 0]
        return np.asarray(found.double().numpy() * self._spread + self._middle)


def _train(net: nn.Module, codes: Tensor, target: Tensor, steps: int, rate: float) -> None:
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.huber_loss(net(codes), target).backward()
        optimiser.step()
        schedule.step()
