# SPDX-License-Identifier: Apache-2.0
"""How much of a score is left when senders disguise their flows."""

import numpy as np

from ..capture import FlowBatch
from ..data.evasion import Evasion, evade
from ..data.spool import joined, pieces
from .audit import Classifier
from .scores import Scores, score


def robust_scores(
    classify: Classifier,
    flows: FlowBatch,
    label: np.ndarray,
    classes: tuple[str, ...],
    tries: int,
    seed: int = 0,
) -> Scores:
    """Scores where each flow's sender tries so many disguises and keeps the best for him.

    That is the one, the undisguised flow included, of which the true class gets the least
    probability. The sender sees probabilities, and changes nothing but what `data.evasion` lets
    him; a stronger search would find more.

    Args:
        label: (N,) class numbers.
        tries: disguises of each flow.
        seed: of the disguises.
    """
    rows = np.arange(len(flows))
    worst = joined([classify(part) for part in pieces(flows)])
    rng = np.random.default_rng(seed)
    for _ in range(tries):
        changed = evade(flows, Evasion.draw(len(flows), rng))
        found = joined([classify(part) for part in pieces(changed)])
        better = found[rows, label] < worst[rows, label]
        worst[better] = found[better]
    return score(label, worst, classes)
