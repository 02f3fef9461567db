# SPDX-License-Identifier: Apache-2.0
"""Choices as rows of whole numbers, for strategies that compute with many of them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..elastic.genes import Choice, Space

Rows = NDArray[np.int64]


class Indexed:
    """A space whose choices are rows: the place of each gene's value among its values."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.sizes = np.array([len(values) for values in space.genes.values()], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    def sample(self, count: int, rng: np.random.Generator) -> Rows:
        """(count, genes), each gene evenly."""
        found: Rows = rng.integers(self.sizes, size=(count, len(self.sizes)))
        return found

    def row(self, choice: Choice) -> Rows:
        """(genes,)."""
        places = [values.index(choice[gene]) for gene, values in self.space.genes.items()]
        return np.array(places, np.int64)

    def rows(self, choices: Iterable[Choice]) -> Rows:
        """(count, genes)."""
        found = [self.row(choice) for choice in choices]
        return np.array(found, np.int64).reshape(len(found), len(self.sizes))

    def choice(self, row: Rows) -> Choice:
        """The canonical choice of a row."""
        pairs = zip(self.space.genes.items(), row, strict=True)
        return self.space.canonical({gene: values[int(place)] for (gene, values), place in pairs})

    def one_hot(self, rows: Rows) -> NDArray[np.float64]:
        """(count, sum of numbers of values)."""
        found = np.zeros((len(rows), int(self.sizes.sum())))
        found[np.arange(len(rows))[:, None], rows + self._starts] = 1
        return found

    def mutated(self, rows: Rows, rate: float, rng: np.random.Generator) -> Rows:
        """Each gene drawn anew with this probability."""
        return np.where(rng.random(rows.shape) < rate, self.sample(len(rows), rng), rows)

    @staticmethod
    def crossed(first: Rows, second: Rows, rng: np.random.Generator) -> Rows:
        """Each gene from one of both, evenly."""
        return np.where(rng.random(first.shape) < 0.5, first, second)
