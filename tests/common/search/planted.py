# SPDX-License-Identifier: Apache-2.0
"""A table whose best rows are known to be better: additive genes and some pairs of them."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fieldfare.common.elastic.genes import Choice, Space
from fieldfare.common.search.run import Problem

SPACE = Space({f"g{number:02}": (0, 1, 2) for number in range(25)})
REFERENCE = np.array([1.1, 1.1])


def planted(seed: int) -> Problem:
    """Two objectives over 25 genes of 3 values, scaled to [0, 1] by 4,000 random networks."""
    rng = np.random.default_rng(seed)
    single = rng.standard_normal((2, 25, 3))
    pairs = np.stack([rng.choice(25, 2, replace=False) for _ in range(40)])
    double = rng.standard_normal((2, 40, 3, 3))

    def raw(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        found = single[:, np.arange(25)[None], rows].sum(-1)
        found += double[:, np.arange(40)[None], rows[:, pairs[:, 0]], rows[:, pairs[:, 1]]].sum(-1)
        return found.T

    scale = raw(rng.integers(3, size=(4000, 25)))
    low, span = scale.min(0), np.ptp(scale, axis=0)

    def evaluate(choices: Sequence[Choice]) -> NDArray[np.float64]:
        rows = np.array([list(choice.values()) for choice in choices])
        return (raw(rows) - low) / span

    return Problem(SPACE, ("error", "time"), evaluate, size)


def noise(seed: int) -> Problem:
    """Nothing to find: a network's values are drawn by its name."""

    def evaluate(choices: Sequence[Choice]) -> NDArray[np.float64]:
        names = ["".join(map(str, choice.values())) for choice in choices]
        draws = [np.random.default_rng([seed, int(name, 3)]).random(2) for name in names]
        return np.array(draws)

    return Problem(SPACE, ("error", "time"), evaluate, size)


def size(choice: Choice) -> dict[str, float]:
    """Counted at once: the sum of the genes."""
    return {"size": float(sum(choice.number(gene) for gene in choice))}


Make = Callable[[Space, int], object]
