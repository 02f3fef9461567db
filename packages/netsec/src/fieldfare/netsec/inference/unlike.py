# SPDX-License-Identifier: Apache-2.0
"""Whether a recording is like what the model knows: how many of its flows are unfamiliar."""

from collections import Counter

import numpy as np
import pyarrow as pa

from fieldfare.common.trust.knowledge import Judgement

from ..data.flow_files import UNKNOWN
from .classifier import FlowClassifier

ALARM = 0.5
"""Share of unfamiliar flows at which a recording is unlike what the model knows."""

LEAST = 10
"""Flows with payload, below which nothing is said."""


class UnlikeFlows:
    """Counts unfamiliar flows, table by table.

    Args:
        classifier: whose labels they are.
    """

    def __init__(self, classifier: FlowClassifier) -> None:
        self._below = classifier.unknown_below
        self._seen = self._unlike = 0
        self._labels: Counter[str] = Counter()

    def add(self, table: pa.Table) -> None:
        """Count the flows of a labelled table; those without payload do not count."""
        if self._below is None:
            return
        familiarity = np.array(table["familiarity"].to_pylist(), float)  # without pandas
        carrying = familiarity > 0
        self._seen += int(carrying.sum())
        self._unlike += int((familiarity[carrying] < self._below).sum())
        self._labels.update(np.array(table["label"].to_pylist(), object)[carrying].tolist())

    def judgement(self) -> Judgement | None:
        """On the recording; None where the model has no evidence or there are too few flows."""
        if self._below is None or self._seen < LEAST:
            return None
        share = self._unlike / self._seen
        named = round(1 - share, 4)
        known = [label for label, _ in self._labels.most_common() if label != UNKNOWN]
        return Judgement(
            distance=round(share / ALARM, 4),
            nearest=known[0] if known else UNKNOWN,
            low=named,
            expected=named,
            high=named,
            alarm=share > ALARM,
            beyond=round(share, 4),
            home=round(1 - self._below, 4),
            quality="share of flows with a name",
        )
