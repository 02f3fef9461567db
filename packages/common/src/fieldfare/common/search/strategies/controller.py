# SPDX-License-Identifier: Apache-2.0
"""A policy that changes one class of genes of the best network at a time.

Auto-GNN (Zhou et al. 2019, arXiv 1909.03184): small greedy steps; the class whose choice is most
open (the highest entropy) is drawn again, and the policy of that class is reinforced by how much
better the child is. With a memory, earlier networks are learnt from again and again: the cure that
Yang et al. 2020 (arXiv 1912.12522) propose for controllers that forget what they chose.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...elastic.genes import Choice, Space
from ..rows import Indexed, Rows

RATE = 1.0


class Controller:
    """REINFORCE with one softmax a gene; a class of genes changes at each step.

    Args:
        classes: name -> its genes; each gene its own class when None.
        first: random networks before the first step.
        memory: earlier networks that each step learns from again; 0 is none.
        objective: the column that is the reward, lower is better.
    """

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        classes: Mapping[str, Sequence[str]] | None = None,
        first: int = 16,
        memory: int = 32,
        objective: int = 0,
    ) -> None:
        self._indexed, self._rng = Indexed(space), np.random.default_rng(seed)
        genes = list(space.genes)
        groups = classes or {gene: [gene] for gene in genes}
        self.classes = {name: [genes.index(g) for g in held] for name, held in groups.items()}
        if sorted(place for held in self.classes.values() for place in held) != list(
            range(len(genes))
        ):
            raise ValueError("every gene belongs to one class")
        self._scores = [np.zeros(size) for size in self._indexed.sizes]
        self._first, self._memory, self._objective = first, memory, objective
        self._rows: list[Rows] = []
        self._rewards: list[float] = []

    def entropy(self, name: str) -> float:
        """Of the policy of a class, in nats a gene."""
        chances = [_softmax(self._scores[place]) for place in self.classes[name]]
        return float(np.mean([-(p * np.log(p)).sum() for p in chances]))

    def ask(self, count: int) -> list[Choice]:
        if len(self._rows) < self._first:
            return [self._indexed.choice(row) for row in self._indexed.sample(count, self._rng)]
        best = self._rows[int(np.argmax(self._rewards))]
        # Classes of high entropy come first and most often.
        open_ = np.array([self.entropy(name) for name in self.classes])
        drawn = self._rng.choice(len(open_), count, p=_softmax(4 * open_))
        children = np.repeat(best[None], count, axis=0)
        for child, which in zip(children, drawn, strict=True):
            for place in list(self.classes.values())[which]:
                chances = _softmax(self._scores[place])
                child[place] = self._rng.choice(len(chances), p=chances)
        return [self._indexed.choice(row) for row in children]

    def tell(self, choices: Sequence[Choice], values: NDArray[np.float64]) -> None:
        rows, rewards = self._indexed.rows(choices), -values[:, self._objective]
        self._rows += list(rows)
        self._rewards += [float(reward) for reward in rewards]
        replayed = range(len(self._rows) - len(rows))
        if self._memory and replayed:
            again = self._rng.choice(len(replayed), min(self._memory, len(replayed)), replace=False)
        else:
            again = np.zeros(0, np.int64)
        fresh = np.arange(len(self._rows) - len(rows), len(self._rows))
        self._learn(np.concatenate([again, fresh]))

    def _learn(self, places: NDArray[np.int64]) -> None:
        """One step of every gene towards what was better than average."""
        rewards = np.array(self._rewards)
        spread = float(rewards.std()) or 1.0
        gains = (rewards[places] - rewards.mean()) / spread
        rows = np.stack([self._rows[place] for place in places])
        for gene, scores in enumerate(self._scores):
            chosen = np.eye(len(scores))[rows[:, gene]]
            scores += RATE * (gains[:, None] * (chosen - _softmax(scores))).mean(0)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max())
    found: NDArray[np.float64] = powers / powers.sum()
    return found


def may_share(
    parent: Mapping[str, object], child: Mapping[str, object], *, decisive: Sequence[str]
) -> bool:
    """Whether a child may take a parent's weights: nothing that decides on them differs.

    Weights fit only between equal shapes, and mean the same only behind equal activations and
    attention; so any difference in those genes forbids it.

    Args:
        decisive: genes of shapes, activation, attention.
    """
    return all(parent[gene] == child[gene] for gene in decisive)
