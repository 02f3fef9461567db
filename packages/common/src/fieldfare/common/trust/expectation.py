# SPDX-License-Identifier: Apache-2.0
"""From signs of trouble to the quality that may be expected: calibrated, monotone, with a range."""

from dataclasses import dataclass

import numpy as np

from .features import Array

BINS = 20
"""At most; each holds at least ten samples."""

RANGE = (0.2, 0.8)
"""The quantiles between which a sample's quality is said to lie."""

_RIDGE = 1e-2
_FARTHEST = 1e3


@dataclass(frozen=True)
class Expectation:
    """Signs -> index -> expected quality.

    Attributes:
        weights, offset: index = signs @ weights + offset, a linear estimate of the quality.
        index: (B,) rising; at these, and straight between them:
        low, middle, high: (B,) 20 % quantile, mean and 80 % quantile of the quality, rising.
    """

    weights: Array
    offset: float
    index: Array
    low: Array
    middle: Array
    high: Array

    def indices(self, signs: Array) -> Array:
        """(N, S) -> (N,); large where a good answer is likely."""
        found: Array = np.clip(signs, -_FARTHEST, _FARTHEST) @ self.weights + self.offset
        return found

    def quality(self, indices: Array) -> tuple[Array, Array, Array]:
        """Low, middle and high of each."""
        low, middle, high = (
            np.interp(indices, self.index, values) for values in (self.low, self.middle, self.high)
        )
        return low, middle, high


def expectation(signs: Array, quality: Array) -> Expectation:
    """Calibrate on samples of known quality, from several places and of several conditions.

    Args:
        signs: (N, S) finite, or clipped where they are not.
        quality: (N,) for example IoU, 0 to 1.

    Raises:
        ValueError: fewer than 20 samples.
    """
    if len(quality) < 20:
        raise ValueError(f"needs 20 samples or more, not {len(quality)}")
    signs = np.clip(signs, -_FARTHEST, _FARTHEST)
    centre, spread = signs.mean(axis=0), signs.std(axis=0) + 1e-9
    unit = (signs - centre) / spread
    gram = unit.T @ unit / len(unit) + _RIDGE * np.eye(unit.shape[1])
    weights = np.linalg.solve(gram, unit.T @ (quality - quality.mean()) / len(unit)) / spread
    offset = float(quality.mean() - centre @ weights)
    order = np.argsort(signs @ weights, kind="stable")
    rising = (signs @ weights + offset)[order]
    bins = np.array_split(np.arange(len(order)), max(2, min(BINS, len(order) // 10)))
    known = quality[order]
    return Expectation(
        weights=weights,
        offset=offset,
        index=np.array([rising[part].mean() for part in bins]),
        low=_monotone(np.array([np.quantile(known[part], RANGE[0]) for part in bins])),
        middle=_monotone(np.array([known[part].mean() for part in bins])),
        high=_monotone(np.array([np.quantile(known[part], RANGE[1]) for part in bins])),
    )


def _monotone(values: Array) -> Array:
    """The rising sequence nearest in least squares (isotonic regression, max-min formula)."""
    count = len(values)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    return np.array(
        [
            max(
                min((sums[k + 1] - sums[j]) / (k + 1 - j) for k in range(i, count))
                for j in range(i + 1)
            )
            for i in range(count)
        ]
    )
