# SPDX-License-Identifier: Apache-2.0
"""Random search: what every other strategy has to beat (Yang et al. 2020, arXiv 1912.12522)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...elastic.genes import Choice, Space


class Random:
    """Each gene evenly."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._rng = space, np.random.default_rng(seed)

    def ask(self, count: int) -> list[Choice]:
        return [self._space.sample(self._rng) for _ in range(count)]

    def tell(self, choices: Sequence[Choice], values: NDArray[np.float64]) -> None:
        """It does not learn."""
