# SPDX-License-Identifier: Apache-2.0
"""Evolution by one objective, as Once-for-All searches (Cai et al. 2020, arXiv 1908.09791)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...elastic.genes import Choice, Space
from ..rows import Indexed

PARENTS, MUTATION = 0.25, 0.1


class Evolution:
    """The best quarter are parents; half of the children are mutants, half crossings of two.

    Args:
        population: choices that stay; the first ones are random.
        objective: the column that counts.
    """

    def __init__(
        self, space: Space, seed: int = 0, *, population: int = 40, objective: int = 0
    ) -> None:
        self._indexed, self._rng = Indexed(space), np.random.default_rng(seed)
        self._size, self._objective = population, objective
        self._rows = self._indexed.rows([])
        self._values = np.zeros(0)

    def ask(self, count: int) -> list[Choice]:
        if len(self._rows) < self._size:
            rows = self._indexed.sample(count, self._rng)
        else:
            parents = self._rows[: max(2, round(PARENTS * self._size))]
            first, second = parents[self._rng.integers(len(parents), size=(2, count))]
            mutants = self._indexed.mutated(first, MUTATION, self._rng)
            crossed = self._indexed.crossed(first, second, self._rng)
            rows = np.where((np.arange(count) % 2 == 0)[:, None], mutants, crossed)
        return [self._indexed.choice(row) for row in rows]

    def tell(self, choices: Sequence[Choice], values: NDArray[np.float64]) -> None:
        rows = np.concatenate([self._rows, self._indexed.rows(choices)])
        found = np.concatenate([self._values, values[:, self._objective]])
        order = np.argsort(found, kind="stable")[: self._size]
        self._rows, self._values = rows[order], found[order]
