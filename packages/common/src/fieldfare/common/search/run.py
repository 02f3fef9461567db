# SPDX-License-Identifier: Apache-2.0
"""The loop that every strategy runs in: ask, reject by limits, evaluate, tell.

Limits that cost nothing to check (parameters, operations, a latency table) are checked here, before
any evaluation and for every strategy, children included: the early rejection of EEEA-Net (arXiv
2108.06156) is a property of the loop. What is rejected is counted and refilled.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..elastic.genes import Choice, Space
from ..errors import InputError

TRIES = 200
"""Proposals a wanted evaluation; a strategy that proposes nothing new is helped by random draws."""


class Strategy(Protocol):
    """Which choices next. It knows genes and values, and nothing of a domain."""

    def ask(self, count: int) -> list[Choice]:
        """About so many proposals; they may repeat themselves or break limits."""
        ...

    def tell(self, choices: Sequence[Choice], values: NDArray[np.float64]) -> None:
        """What was found: (count, objectives), lower is better."""
        ...


@dataclass(frozen=True)
class Problem:
    """What is searched.

    Attributes:
        objectives: names of the columns that `evaluate` gives; lower is better.
        evaluate: choices -> (count, objectives), the expensive part.
        costs: choice -> name -> value; counted, not measured, and cheap.
    """

    space: Space
    objectives: tuple[str, ...]
    evaluate: Callable[[Sequence[Choice]], NDArray[np.float64]]
    costs: Callable[[Choice], Mapping[str, float]] = lambda choice: {}


@dataclass
class History:
    """What was evaluated, in order, and how many proposals were rejected without evaluation."""

    objectives: tuple[str, ...]
    choices: list[Choice] = field(default_factory=list)
    rows: list[NDArray[np.float64]] = field(default_factory=list)
    rejected: int = 0

    @property
    def values(self) -> NDArray[np.float64]:
        """(evaluations, objectives)."""
        return np.array(self.rows).reshape(len(self.rows), len(self.objectives))


def search(
    problem: Problem,
    strategy: Strategy,
    *,
    budget: int,
    batch: int = 16,
    limits: Mapping[str, float] | None = None,
    seed: int = 0,
    told: Callable[[History], None] = lambda history: None,
) -> History:
    """Evaluate so many different choices, all within the limits.

    Args:
        budget: true evaluations; fewer where the space holds fewer.
        batch: evaluated together; a strategy learns between batches.
        limits: largest allowed value of a cost, by name.
        seed: of the draws that help a strategy which repeats itself.
        told: called after every batch.

    Raises:
        InputError: not even the smallest network keeps a limit; the message names its cost.
    """
    limits = dict(limits or {})
    _check(problem, limits)
    proposals = _Proposals(problem, strategy, limits, np.random.default_rng(seed))
    history = History(problem.objectives)
    while len(history.choices) < budget:
        fresh = proposals.take(min(batch, budget - len(history.choices)))
        history.rejected = proposals.rejected
        if not fresh:
            break
        values = np.asarray(problem.evaluate(fresh), dtype=np.float64)
        if values.shape != (len(fresh), len(problem.objectives)):
            raise ValueError(f"the evaluator gave {values.shape} for {len(fresh)} choices")
        history.choices += fresh
        history.rows += list(values)
        strategy.tell(fresh, values)
        told(history)
    return history


def _check(problem: Problem, limits: Mapping[str, float]) -> None:
    least = problem.costs(problem.space.smallest())
    for name, limit in limits.items():
        if name not in least:
            known = ", ".join(least) or "nothing"
            raise InputError(f"no limit on {name!r}: what is counted is {known}")
        if least[name] > limit:
            raise InputError(
                f"{name} {limit:.4g}: nothing fits; the smallest network takes {least[name]:.4g}"
            )


@dataclass
class _Proposals:
    """Different choices within the limits, each given once."""

    problem: Problem
    strategy: Strategy
    limits: Mapping[str, float]
    rng: np.random.Generator
    seen: set[Choice] = field(default_factory=set)
    rejected: int = 0

    def take(self, wanted: int) -> list[Choice]:
        """So many, or fewer where hardly any are left."""
        space, found = self.problem.space, list[Choice]()
        for attempt in range(TRIES):
            left = wanted - len(found)
            if not left:
                break
            own = attempt < TRIES // 2  # afterwards the strategy has nothing new to say
            draws = self.strategy.ask(left) if own else self._drawn(left)
            found += [choice for choice in map(space.canonical, draws[:left]) if self._fits(choice)]
        return found

    def _drawn(self, count: int) -> list[Choice]:
        return [self.problem.space.sample(self.rng) for _ in range(count)]

    def _fits(self, choice: Choice) -> bool:
        if choice in self.seen:
            return False
        costs = self.problem.costs(choice) if self.limits else {}
        if any(costs[name] > limit for name, limit in self.limits.items()):
            self.rejected += 1
            return False
        self.seen.add(choice)
        return True
