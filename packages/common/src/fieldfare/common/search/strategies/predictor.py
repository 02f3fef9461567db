# SPDX-License-Identifier: Apache-2.0
"""Search on predictions that are fitted anew after every batch.

Cummings et al. 2022 (arXiv 2205.10358), LINAS: measure a population, fit one predictor for each
objective on all that was measured, run NSGA-II on the predictors, measure its best unseen points,
and so on.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...elastic.genes import Choice, Space
from ..pareto import select
from ..rows import Indexed, Rows
from .nsga import MUTATION, children

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)
FOLDS = 5


class Ridge:
    """Ridge regression on one-hot genes; the strength is chosen by cross-validation.

    The error that chooses is the mean absolute one.
    """

    def __init__(self, codes: NDArray[np.float64], target: NDArray[np.float64]) -> None:
        folds = np.arange(len(codes)) % FOLDS
        errors = dict.fromkeys(STRENGTHS, 0.0)
        for fold in range(FOLDS):
            held = folds == fold
            if held.all() or not held.any():
                continue
            for strength in STRENGTHS:
                weights, offset = _ridge(codes[~held], target[~held], strength)
                guess = codes[held] @ weights + offset
                errors[strength] += float(np.abs(guess - target[held]).sum())
        self.strength = min(STRENGTHS, key=lambda strength: errors[strength])
        self._weights, self._offset = _ridge(codes, target, self.strength)

    def __call__(self, codes: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, columns) -> (n,)."""
        return codes @ self._weights + self._offset


def _ridge(
    codes: NDArray[np.float64], target: NDArray[np.float64], strength: float
) -> tuple[NDArray[np.float64], float]:
    middle, mean = codes.mean(0), float(target.mean())
    centred = codes - middle
    left = centred.T @ centred + strength * np.eye(codes.shape[1])
    weights = np.linalg.solve(left, centred.T @ (target - mean))
    return weights, mean - float(middle @ weights)


class Predictor:
    """NSGA-II on ridge regressions, fitted anew at every `ask`.

    Args:
        first: random choices before the first fit.
        population, generations: of the search on predictions.
    """

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        first: int = 48,
        population: int = 50,
        generations: int = 60,
    ) -> None:
        self._indexed, self._rng = Indexed(space), np.random.default_rng(seed)
        self._first, self._size, self._generations = first, population, generations
        self._rows = self._indexed.rows([])
        self._values: NDArray[np.float64] | None = None
        self._waiting: list[Choice] = []

    def ask(self, count: int) -> list[Choice]:
        if self._values is None or len(self._rows) < self._first:
            return [self._indexed.choice(row) for row in self._indexed.sample(count, self._rng)]
        if not self._waiting:
            self._waiting = self._best_unseen(self._values)
        given, self._waiting = self._waiting[:count], self._waiting[count:]
        return given

    def tell(self, choices: Sequence[Choice], values: NDArray[np.float64]) -> None:
        self._rows = np.concatenate([self._rows, self._indexed.rows(choices)])
        self._values = values if self._values is None else np.concatenate([self._values, values])
        self._waiting = []

    def _best_unseen(self, values: NDArray[np.float64]) -> list[Choice]:
        """What the search on predictions ends with, the best first, without what was measured."""
        codes = self._indexed.one_hot(self._rows)
        models = [Ridge(codes, column) for column in values.T]

        def predicted(rows: Rows) -> NDArray[np.float64]:
            hot = self._indexed.one_hot(rows)
            return np.stack([model(hot) for model in models], axis=1)

        rows = np.unique(
            np.concatenate(
                [
                    self._rows[select(values, self._size // 2)],
                    self._indexed.sample(self._size, self._rng),
                ]
            ),
            axis=0,
        )
        rows = rows[select(predicted(rows), self._size)]
        for _ in range(self._generations):
            found = predicted(rows)
            new = children(self._indexed, rows, found, self._size, MUTATION, self._rng)
            rows = np.unique(np.concatenate([rows, new]), axis=0)
            rows = rows[select(predicted(rows), self._size)]
        measured = {self._indexed.choice(row) for row in self._rows}
        ordered = rows[select(predicted(rows), len(rows))]
        choices = dict.fromkeys(self._indexed.choice(row) for row in ordered)
        return [choice for choice in choices if choice not in measured]
