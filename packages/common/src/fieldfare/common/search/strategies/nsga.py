# SPDX-License-Identifier: Apache-2.0
"""NSGA-II (Deb et al. 2002) on genes, as EEEA-Net searches (arXiv 2108.06156)."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...elastic.genes import Choice, Space
from ..pareto import crowding, ranks, select
from ..rows import Indexed, Rows

Select = Callable[[NDArray[np.float64], int], NDArray[np.int64]]

MUTATION = 0.1


class NSGA2:
    """A population ranked by fronts; children of tournaments of two, crossed and mutated.

    Args:
        population: its size; the first ones are random.
        select: who survives; `pareto.select_with_slow_learners` keeps large networks.
        mutation: probability of each gene to be drawn anew.
    """

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        population: int = 40,
        select: Select = select,
        mutation: float = MUTATION,
    ) -> None:
        self._indexed, self._rng = Indexed(space), np.random.default_rng(seed)
        self._size, self._select, self._mutation = population, select, mutation
        self._rows = self._indexed.rows([])
        self._values: NDArray[np.float64] | None = None

    def ask(self, count: int) -> list[Choice]:
        if self._values is None or len(self._rows) < self._size:
            rows = self._indexed.sample(count, self._rng)
        else:
            rows = children(
                self._indexed, self._rows, self._values, count, self._mutation, self._rng
            )
        return [self._indexed.choice(row) for row in rows]

    def tell(self, choices: Sequence[Choice], values: NDArray[np.float64]) -> None:
        told = self._indexed.rows(choices)
        before = values[:0] if self._values is None else self._values
        rows, found = np.concatenate([self._rows, told]), np.concatenate([before, values])
        kept = self._select(found, self._size)
        self._rows, self._values = rows[kept], found[kept]


def children(
    indexed: Indexed,
    rows: Rows,
    values: NDArray[np.float64],
    count: int,
    mutation: float,
    rng: np.random.Generator,
) -> Rows:
    """So many children of parents that won a tournament of two: (count, genes)."""
    rank, far = ranks(values), crowding(values)
    pairs = rng.integers(len(rows), size=(2 * count, 2))
    first, second = pairs.T
    tied = rank[first] == rank[second]
    wins = np.where(tied, far[first] >= far[second], rank[first] < rank[second])
    winners = rows[np.where(wins, first, second)]
    crossed = indexed.crossed(winners[:count], winners[count:], rng)
    return indexed.mutated(crossed, mutation, rng)
