# SPDX-License-Identifier: Apache-2.0
"""Strategies against random search on planted tables, and on tables of pure noise.

    python benchmarks/common/search_tables.py --seeds 10 --evaluations 200

A planted table has 25 genes of 3 values: additive terms and 40 random pairs, two objectives, scaled
to [0, 1] by 4,000 random networks; hypervolumes are up to 1.1. On noise there is nothing to find: a
strategy that is called better than random search there is called so wrongly.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fieldfare.common import console
from fieldfare.common.elastic.genes import Choice, Space
from fieldfare.common.search.pareto import hypervolume
from fieldfare.common.search.report import compare
from fieldfare.common.search.run import Problem, Strategy, search
from fieldfare.common.search.strategies.controller import Controller
from fieldfare.common.search.strategies.evolution import Evolution
from fieldfare.common.search.strategies.nsga import NSGA2
from fieldfare.common.search.strategies.predictor import Predictor
from fieldfare.common.search.strategies.random import Random

SPACE = Space({f"g{number:02}": (0, 1, 2) for number in range(25)})
REFERENCE = np.array([1.1, 1.1])
STRATEGIES: dict[str, Callable[[Space, int], Strategy]] = {
    "random": Random,
    "evolution": Evolution,
    "controller": Controller,
    "nsga": NSGA2,
    "predictor": Predictor,
}


def planted(seed: int) -> Problem:
    """Good networks can be found."""
    rng = np.random.default_rng(seed)
    single, double = rng.standard_normal((2, 25, 3)), rng.standard_normal((2, 40, 3, 3))
    first, second = np.stack([rng.choice(25, 2, replace=False) for _ in range(40)]).T

    def raw(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        pairs = double[:, np.arange(40), rows[:, first], rows[:, second]]
        return (single[:, np.arange(25), rows].sum(-1) + pairs.sum(-1)).T

    scale = raw(rng.integers(3, size=(4000, 25)))
    low, span = scale.min(0), np.ptp(scale, axis=0)

    def evaluate(choices: Sequence[Choice]) -> NDArray[np.float64]:
        return (raw(np.array([list(choice.values()) for choice in choices])) - low) / span

    return Problem(SPACE, ("error", "time"), evaluate)


def noise(seed: int) -> Problem:
    """Nothing can be found."""

    def evaluate(choices: Sequence[Choice]) -> NDArray[np.float64]:
        names = [int("".join(map(str, choice.values())), 3) for choice in choices]
        return np.array([np.random.default_rng([seed, name]).random(2) for name in names])

    return Problem(SPACE, ("error", "time"), evaluate)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=200)
    options = parser.parse_args()
    rows, plain = [], np.zeros(0)
    for name, make in STRATEGIES.items():
        volumes, called, wrongly = list[float](), 0, 0
        for seed in range(options.seeds):
            runs = [
                search(table(seed), strategy, budget=options.evaluations)
                for table in (planted, noise)
                for strategy in (make(SPACE, seed), Random(SPACE, 1000 + seed))
            ]
            volumes.append(hypervolume(runs[0].values, REFERENCE))
            called += compare(runs[0], runs[1]).better
            wrongly += compare(runs[2], runs[3]).better
        found = np.array(volumes)
        plain = found if name == "nsga" else plain
        rows.append(
            {
                "strategy": name,
                "hypervolume": float(found.mean()),
                "spread": float(found.std()),
                "called better": f"{called} of {options.seeds}",
                "on noise": f"{wrongly} of {options.seeds}",
                "above NSGA-II": f"{(found > plain).sum()}" if name == "predictor" else None,
            }
        )
    print(console.table(rows))


if __name__ == "__main__":
    main()
