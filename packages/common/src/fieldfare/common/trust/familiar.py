# SPDX-License-Identifier: Apache-2.0
"""How far features lie from those of the training data: Mahalanobis distance in few directions.

The covariance is that of probabilistic principal components (Tipping and Bishop 1999): the largest
directions as they are, all others with one common variance. It is shared by the groups (places,
scanners, captures), each of which has its own mean, as in Lee et al., "A Simple Unified Framework
for Detecting Out-of-Distribution Samples and Adversarial Attacks" (arXiv 1807.03888).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .features import Array

DIRECTIONS = 32
"""At most; fewer where there are less than four samples for each."""

_LEAST_VARIANCE = 1e-3
"""Of a standardised feature, so that one that never varied does not decide alone."""


@dataclass(frozen=True)
class Familiar:
    """What one layer's features looked like on the training data.

    Attributes:
        scale: (F,) standard deviation of each feature within a group.
        means: (G, F) of each group, in units of `scale`.
        directions: (F, R) orthonormal, in units of `scale`.
        variances: (R,) along them.
        rest: variance along every other direction.
    """

    scale: Array
    means: Array
    directions: Array
    variances: Array
    rest: float

    def distances(self, features: Array) -> Array:
        """(N, F) -> (N, G): root mean square of the deviation in each direction; about 1 at home.

        NaN or infinite features are infinitely far.
        """
        offsets = (features / self.scale)[:, None] - self.means
        along = offsets @ self.directions
        total = (offsets**2).sum(-1)
        beside = np.maximum(total - (along**2).sum(-1), 0)
        squares = (along**2 / self.variances).sum(-1) + beside / self.rest
        found: Array = np.sqrt(squares / features.shape[1])
        return np.where(np.isfinite(found), found, np.inf)


def familiar(groups: Mapping[str, Array]) -> Familiar:
    """Learn what a layer's features look like.

    Args:
        groups: name -> features (N, F); together at least eight samples.

    Raises:
        ValueError: fewer samples, or not one number of features.
    """
    counts = {features.shape[1] for features in groups.values()}
    samples = sum(len(features) for features in groups.values())
    if len(counts) != 1 or samples < 8:
        raise ValueError(f"needs 8 samples or more of equal length, not {samples} of {counts}")
    means = np.stack([features.mean(axis=0) for features in groups.values()])
    within = np.concatenate(
        [features - mean for features, mean in zip(groups.values(), means, strict=True)]
    )
    spread = within.std(axis=0)
    scale = np.maximum(spread, max(_LEAST_VARIANCE * float(np.median(spread)), 1e-9))
    within = within / scale
    length = within.shape[1]
    rank = max(1, min(DIRECTIONS, samples // 4, length - 1))
    _, singular, rows = np.linalg.svd(within, full_matrices=False)
    variances = singular**2 / samples
    rest = float(variances[rank:].sum()) / max(1, length - rank)
    return Familiar(
        scale=scale,
        means=means / scale,
        directions=np.ascontiguousarray(rows[:rank].T),
        variances=np.maximum(variances[:rank], _LEAST_VARIANCE),
        rest=max(rest, _LEAST_VARIANCE),
    )


def nearest(distances: Sequence[Array]) -> tuple[Array, Array]:
    """Of each layer's distances (N, G): those to the group nearest over all layers.

    Returns:
        (N, L) distances, (N,) which group.
    """
    together = np.stack(distances, axis=-1)
    group = (together**2).mean(-1).argmin(axis=1)
    return together[np.arange(len(group)), group], group
