# SPDX-License-Identifier: Apache-2.0
"""Shortcut audit: what a classifier still knows once the fields that give a flow away are hidden.

Ports, TTL and addresses of a recording say where and when it was made; a classifier that leans on
them fails on another network. They are set to 0 in the bytes and in the columns, in turn.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..capture import FlowBatch
from ..data.masking import FIELDS, mask
from ..data.spool import joined, pieces
from .scores import Scores, score

Classifier = Callable[[FlowBatch], np.ndarray]
"""N flows with their first packets in, (N, C) probabilities out."""

MASKS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "ports": ("ports",),
    "ttl": ("ttl",),
    "addresses": ("addresses",),
    "all": FIELDS,
}
"""What an audit hides, in turn; `all` takes in what the others can be computed from."""

LOOKUP = "port lookup"


def audit(
    classify: Classifier,
    flows: FlowBatch,
    label: np.ndarray,
    classes: Sequence[str],
    lookup: Classifier | None = None,
) -> dict[str, Scores]:
    """Scores with each of `MASKS` in turn.

    Args:
        classify: called once for each mask, or for pieces of many flows.
        flows: N, at least 1, with the first packets that the classifier needs.
        label: (N,) class numbers.
        lookup: a fitted `baselines.PortLookup`, scored unmasked and told as `port lookup`.

    Returns:
        By name of the mask, in order.
    """
    found = {
        name: score(
            label, joined([classify(mask(part, fields)) for part in pieces(flows)]), classes
        )
        for name, fields in MASKS.items()
    }
    if lookup is not None:
        found[LOOKUP] = score(label, joined([lookup(part) for part in pieces(flows)]), classes)
    return found


def audit_rows(found: dict[str, Scores]) -> list[dict[str, str | float | None]]:
    """An audit as rows for `console.table`: macro-F1, accuracy and what hiding cost of macro-F1."""
    whole = found["nothing"].macro_f1
    return [
        {
            "hidden": "(baseline) " + name if name == LOOKUP else name,
            "macro_f1": scores.macro_f1,
            "accuracy": scores.accuracy,
            "change": None if name == LOOKUP else scores.macro_f1 - whole,
        }
        for name, scores in found.items()
    ]
