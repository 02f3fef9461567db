# SPDX-License-Identifier: Apache-2.0
"""Which layers an input can do without: skip, small or big in each, found by search.

Alizadeh-Vahid et al. 2024, *Duo-LLM* (arXiv 2410.10846): what a router could reach at best, to set
beside what it does reach.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

Path = tuple[int, ...]
"""A choice for each layer, by number."""

EXACT = 8
"""Most layers of which every path is tried."""


class Best(NamedTuple):
    """The best path within a budget."""

    loss: float
    cost: float
    path: Path


def oracle(
    loss: Callable[[Path], float],
    costs: Sequence[float],
    layers: int,
    budgets: Sequence[float],
    *,
    beam: int = 64,
) -> list[Best]:
    """For each budget the path of the least loss; among equal ones the cheapest, then the first.

    All paths up to `EXACT` layers. Above, `beam` paths at a time grow towards the end, what is not
    decided yet at the cheapest choice; that may miss the best. The path with every layer at the
    dearest choice is always among those tried, so the result is never worse where it is affordable,
    and a larger budget never gives a larger loss.

    Args:
        loss: of a path; called once for each that is tried.
        costs: of each choice in a layer.
        layers: how many.
        budgets: most cost of a path each; any order.

    Raises:
        ValueError: the cheapest path costs more than a budget.
    """
    cheapest = min(range(len(costs)), key=costs.__getitem__)
    dearest = max(range(len(costs)), key=costs.__getitem__)
    if min(budgets) < costs[cheapest] * layers:
        raise ValueError(
            f"the cheapest path costs {costs[cheapest] * layers}, budget {min(budgets)}"
        )
    tried: dict[Path, Best] = {}

    def measure(path: Path) -> Best:
        if path not in tried:
            tried[path] = Best(loss(path), sum(costs[choice] for choice in path), path)
        return tried[path]

    if layers <= EXACT:
        for path in itertools.product(range(len(costs)), repeat=layers):
            measure(path)
    else:
        measure((dearest,) * layers)
        for budget in sorted(set(budgets)):
            _search(measure, len(costs), (cheapest,) * layers, budget, beam)
    found = []
    for budget in budgets:
        affordable = (best for best in tried.values() if best.cost <= budget)
        found.append(min(affordable, key=lambda best: (best.loss, best.cost, best.path)))
    return found


def difficulty(small: float, best: float) -> float:
    """How much an input asks for more than the small path: its loss there over the best one."""
    return small - best


def _search(
    measure: Callable[[Path], Best], choices: int, start: Path, budget: float, beam: int
) -> None:
    front = [measure(start)]
    for layer in range(len(start)):
        grown = {
            (*best.path[:layer], choice, *best.path[layer + 1 :])
            for best in front
            for choice in range(choices)
        }
        measured = [best for best in map(measure, sorted(grown)) if best.cost <= budget]
        front = sorted(measured, key=lambda best: (best.loss, best.cost, best.path))[:beam]
